"""A run directory: opened once by one driver, for one configuration.

Resuming is opening it again: what decides the answers must be what the run was started with, everything else may change.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from wdct_dist.config.load import differences, from_yaml, to_yaml
from wdct_dist.config.schema import Config
from wdct_dist.errors import RunDirError
from wdct_dist.tables.storage import TEMPORARY, Store

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
SUMMARY = "scores/summary.arrow"
LOCK = ".lock"


def open_run(config: Config) -> Store:
    """The store of the run that `config` names: made where it is new, checked where it is resumed."""
    store = usable_run(config)
    store.make_root()
    # only now: a store that never worked is a mistake to be told at once
    store.retry_s = config.dispatch.store_retry_s
    return store


def usable_run(config: Config) -> Store:
    """The store of the run that `config` names, nothing made yet. Raises `RunDirError` where it cannot be that of this run."""
    store = Store(config.run_dir)
    if store.exists(CONFIG):
        if changed := differences(read_config(store), config):
            raise RunDirError(
                f"run_dir: {config.run_dir} holds a run of another configuration:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nGive these settings as they were to go on, or another run_dir to start anew."
            )
    elif store.local is not None and store.local.exists() and not store.local.is_dir():
        raise RunDirError(f"run_dir: {config.run_dir} is a file; choose a directory with run_dir=….")
    elif foreign := _foreign(store):
        raise RunDirError(
            f"run_dir: {config.run_dir} is not empty and not a run (it has no {CONFIG}, but {foreign}); choose a new directory with "
            "run_dir=…."
        )
    return store


def _foreign(store: Store) -> str | None:
    """The name of something in the root that a run which got no further than its prompts does not leave; None where there is none."""
    ours = {LOCK, PROVENANCE, "items.arrow", "prompts.arrow", "paraphrase", "paraphrases.jsonl", "align"}
    if store.local is None:
        return next((name for name in store.names("") if name not in ours), None)
    for entry in sorted(store.local.iterdir()) if store.local.is_dir() else ():
        empty_folder = entry.name in ("answers", "scores") and entry.is_dir() and not any(entry.iterdir())
        if entry.name not in ours and not entry.name.startswith(TEMPORARY) and not empty_folder:
            return entry.name
    return None


def write_config(store: Store, config: Config) -> None:
    store.write(CONFIG, to_yaml(config).encode())


def existing_run(uri: str) -> Store:
    """The store of a run that must be there already."""
    store = Store(uri)
    if not store.exists(CONFIG):
        raise RunDirError(f"{uri or '(an empty name)'}: not a run (it has no {CONFIG}); give a directory that `wdct evaluate` wrote.")
    return store


def read_config(store: Store) -> Config:
    """The configuration of a run."""
    try:
        return from_yaml(store.read(CONFIG).decode())
    except Exception as error:
        raise RunDirError(
            f"{store.uri}: its {CONFIG} is not readable ({str(error).splitlines()[0]}); restore it, or choose another run_dir."
        ) from None


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Holds a local run directory for one driver; the lock ends with the process, however it ends.

    An object store has no such lock: two drivers there do the same work twice, and write the same shards.
    """
    if store.local is None:
        yield
        return
    handle = os.open(store.local / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 64).decode().strip() or "unknown"
            raise RunDirError(
                f"run_dir: {store.uri} is in use by another `wdct` (process {owner}); wait for it, or choose another run_dir."
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def read_provenance(store: Store) -> dict[str, Any]:
    """What provenance.json says; empty where there is none yet or it was cut short."""
    try:
        provenance = json.loads(store.read(PROVENANCE))
    except (FileNotFoundError, ValueError):
        return {}
    return provenance if isinstance(provenance, dict) else {}


def write_provenance(store: Store, provenance: dict[str, Any]) -> None:
    store.write(PROVENANCE, json.dumps(provenance, indent=2, ensure_ascii=False, default=str).encode())


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
