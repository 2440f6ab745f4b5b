"""How each checkpoint stands in each variant: what is done, what is running, what has an error, how fast. From a run's files alone.

What is done is what the names of the shards say; everything else the events tell, of the last session for rates and running units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wdct_dist.tables.events import CLOSED
from wdct_dist.tables.shards import DIGEST_LENGTH, ShardKey, parse_name

ENDS_AN_ENGINE = {"engine lost", "start failed"}
"""Events after which nothing runs on their engine."""


@dataclass(slots=True)
class Standing:
    """One checkpoint in one variant. Prompts are counted once a trial."""

    variant: str
    wanted: int = 0
    done: int = 0
    running: int = 0
    """Prompts given to an engine and not done; where the run is dead, those that were lost with it."""
    engines: set[int] = field(default_factory=set)
    """Engines that have them."""
    errors: int = 0
    """Prompts that have an error instead of an answer."""
    shards_with_errors: list[str] = field(default_factory=list)
    prompts_per_s: float | None = None
    """From the first unit given to the last one done, in the last session that did any."""


@dataclass(slots=True)
class _Pace:
    """When units of a checkpoint and variant were given first and done last, in seconds, and the prompts between."""

    began: float
    ended: float = 0.0
    prompts: int = 0


def standings(
    record: Mapping[str, Any], trials: int, names: Iterable[str], events: Sequence[Mapping[str, Any]]
) -> dict[str, list[Standing]]:
    """By checkpoint id, one for each variant in the order of the prompts. `record`: provenance.json; `names`: those of the shards."""
    spans = [(str(variant), int(start), int(stop)) for variant, start, stop in record.get("prompts", {}).get("variants", [])]
    done: dict[str, list[ShardKey]] = {}
    for key in map(parse_name, names):
        if key is not None:
            done.setdefault(key.checkpoint_digest, []).append(key)
    found = {}
    for checkpoint in record.get("checkpoints", []):
        by_variant = {variant: Standing(variant) for variant, _, _ in spans}
        for variant, start, stop in spans:
            standing = by_variant[variant]
            standing.wanted += (stop - start) * trials
            standing.done += sum(
                max(0, min(stop, key.stop) - max(start, key.start)) for key in done.get(checkpoint["digest"][:DIGEST_LENGTH], [])
            )
        _follow(events, checkpoint["checkpoint_id"], by_variant)
        found[checkpoint["checkpoint_id"]] = list(by_variant.values())
    return found


def _follow(events: Sequence[Mapping[str, Any]], checkpoint_id: str, by_variant: Mapping[str, Standing]) -> None:
    """Adds what the events say of one checkpoint."""
    running: dict[str, Mapping[str, Any]] = {}
    with_errors: dict[str, Mapping[str, Any]] = {}
    paces: dict[str, _Pace] = {}
    for event in events:
        kind = event["event"]
        if kind == "plan":  # a new session
            running, paces = {}, {}
        elif kind == CLOSED:
            running = {}
        elif kind in ENDS_AN_ENGINE:
            running = {shard: given for shard, given in running.items() if given["engine"] != event["engine"]}
        if event.get("checkpoint") != checkpoint_id or event.get("variant") not in by_variant:
            continue
        if kind == "unit given":
            running[event["shard"]] = event
            paces.setdefault(event["variant"], _Pace(_seconds(event)))
        elif kind == "unit done":
            running.pop(event["shard"], None)
            with_errors[event["shard"]] = event
            pace = paces.setdefault(event["variant"], _Pace(_seconds(event)))
            pace.ended = _seconds(event)
            pace.prompts += event["rows"]
    for given in running.values():
        by_variant[given["variant"]].running += given["rows"]
        by_variant[given["variant"]].engines.add(given["engine"])
    for shard, event in with_errors.items():
        if event["errors"]:
            by_variant[event["variant"]].errors += event["errors"]
            by_variant[event["variant"]].shards_with_errors.append(shard)
    for variant, pace in paces.items():
        if pace.ended > pace.began:
            by_variant[variant].prompts_per_s = pace.prompts / (pace.ended - pace.began)


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
