"""The manifest and what is completed: facts on disk, verified before they are believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from wdct_dist.tables.shards import Shard, ShardDamaged, ShardKey, facts_of, parse_name, verify
from wdct_dist.tables.storage import Store

NAME = "manifest.json"
VERSION = 1


@dataclass(slots=True)
class Completed:
    """The verified shards of a run, and what was found wrong on the way."""

    shards: dict[str, Shard] = field(default_factory=dict)
    """By name."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Name to reason: files deleted, or listed without being there; their units are done again."""

    @property
    def keys(self) -> list[ShardKey]:
        return [shard.key for shard in self.shards.values()]


def write_manifest(store: Store, shards: Iterable[Shard]) -> None:
    """Lists the completed shards. Written last: a shard that is not listed is verified by its own content."""
    listed = [asdict(shard) for shard in sorted(shards, key=lambda shard: shard.name)]
    store.write(NAME, json.dumps({"version": VERSION, "shards": listed}, indent=1).encode())


def read_manifest(store: Store) -> dict[str, Shard]:
    """The shards that the manifest lists, by name; empty where there is no readable manifest (it is rebuilt)."""
    try:
        listed = json.loads(store.read(NAME))["shards"]
        return {entry["name"]: Shard(entry["name"], int(entry["rows"]), entry["sha256"]) for entry in listed}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def find_completed(store: Store, prompts_digest: str | None = None, *, threads: int = 8) -> Completed:
    """Reads and verifies every shard. What is damaged, or not what the manifest says, is deleted and reported.

    So is what states that it answers prompts of another digest than `prompts_digest`: a shard names its prompts by their places alone.

    Of shards that overlap (a unit that was split while a lost engine still finished it), the longer one is kept, so that no row
    is there twice.
    """
    listed = read_manifest(store)
    names = [name for name in store.names("answers") if parse_name(name) is not None]
    completed, there = Completed(), set(names)
    for name in listed:
        if name not in there:
            completed.damaged[name] = "listed in the manifest, but not there"
    with ThreadPoolExecutor(threads) as pool:
        for name, result in zip(names, pool.map(lambda name: _examine(store, name, listed.get(name), prompts_digest), names), strict=True):
            if isinstance(result, Shard):
                completed.shards[name] = result
            else:
                completed.damaged[name] = result
                store.delete(name)
    for name in overlapped(completed.shards.values()):
        del completed.shards[name]
        store.delete(name)
    return completed


def overlapped(shards: Iterable[Shard]) -> list[str]:
    """Names of the shards whose rows stand in another shard too; of two that overlap the longer stays."""
    names: list[str] = []
    kept: Shard | None = None
    for shard in sorted(shards, key=lambda shard: (*_place(shard), -shard.rows)):
        if kept is None or _place(kept)[:2] != _place(shard)[:2] or shard.key.start >= kept.key.stop:
            kept = shard
        elif shard.rows > kept.rows:
            names.append(kept.name)
            kept = shard
        else:
            names.append(shard.name)
    return names


def once(names: Iterable[str]) -> list[str]:
    """Of the names of shards (others are left aside) those that have each row once, in their order.

    An engine that was given up may still have written its unit, of which others then did the parts; the next session deletes one of the
    two, and until then they stand beside each other.
    """
    shards = [Shard(name, key.stop - key.start, "") for name in names if (key := parse_name(name)) is not None]
    doubled = set(overlapped(shards))
    return [shard.name for shard in shards if shard.name not in doubled]


def _place(shard: Shard) -> tuple[str, int, int]:
    return (shard.key.checkpoint_digest, shard.key.trial, shard.key.start)


def _examine(store: Store, name: str, listed: Shard | None, prompts_digest: str | None) -> Shard | str:
    try:
        data = store.read(name, keep=True)  # what is whole is scored later
        found = verify(name, data) if listed is None else _as_listed(data, listed)
        if (
            isinstance(found, Shard)
            and prompts_digest is not None
            and facts_of(data).get("prompts_digest", prompts_digest) != prompts_digest
        ):
            return "it answers other prompts than the run has now"
        return found
    except ShardDamaged as error:
        return str(error)
    except FileNotFoundError:
        return "gone while it was read"


def _as_listed(data: bytes, listed: Shard) -> Shard | str:
    if listed.sha256 != hashlib.sha256(data).hexdigest():
        return "its hash is not the one in the manifest"
    if listed.rows != listed.key.stop - listed.key.start:
        return f"the manifest says {listed.rows} rows, its name {listed.key.stop - listed.key.start}"
    return listed
