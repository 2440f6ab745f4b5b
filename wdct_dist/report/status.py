"""How far a run is, from its files alone: live, dead or finished."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wdct_dist.config.schema import Config
from wdct_dist.report.standing import Standing, standings
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.events import CLOSED, read_events
from wdct_dist.tables.run_dir import LOCK, read_config, read_provenance
from wdct_dist.tables.shards import DIGEST_LENGTH, parse_name
from wdct_dist.tables.storage import Store


def status_text(store: Store) -> str:
    """Per checkpoint what is done, and what went wrong, as lines for a person."""
    config, record = read_config(store), read_provenance(store)
    prompts = record.get("prompts", {}).get("count", 0)
    wanted = prompts * config.trials
    done = rows_done(store)
    events = read_events(store)
    lines = [f"{store.uri}: {_state(store, record, wanted, done, events)}"]
    live = _is_locked(store) or _is_heard_of(store, events)
    standing = standings(record, config.trials, store.names("answers"), events)
    for checkpoint in record.get("checkpoints", []):
        rows = done[checkpoint["digest"][:DIGEST_LENGTH]]
        share = 100 * rows / wanted if wanted else 0.0
        lines.append(f"  {checkpoint['checkpoint_id']}: {rows:,} of {wanted:,} prompts ({share:.0f} %)")
        if rows < wanted or any(one.errors for one in standing[checkpoint["checkpoint_id"]]):
            lines += [line for one in standing[checkpoint["checkpoint_id"]] for line in _variant_lines(store, one, live)]
    for name, reason in record.get("failed_checkpoints", {}).items():
        lines.append(f"  {name}: failed: {reason}")
    faults = Counter(event["event"] for event in events if event["event"] in FAULTS)
    if faults:
        lines.append("  " + ", ".join(f"{name}: {count}" for name, count in sorted(faults.items())))
    last = next((event for event in reversed(events) if event["event"] in FAULTS), None)
    if last is not None:
        lines.append(f"  last fault, {last['time']}: {last['event']}" + (f": {last['reason']}" if "reason" in last else ""))
    if events:
        lines.append(f"  last event, {events[-1]['time']}: {events[-1]['event']}")
    return "\n".join(lines)


SHARDS_LOOKED_INTO = 20
"""Of those with errors, at most so many are read for the reasons."""


def _variant_lines(store: Store, standing: Standing, live: bool) -> list[str]:
    line = f"    {standing.variant}: {standing.done:,} of {standing.wanted:,}"
    if standing.running and live:
        line += f", {standing.running:,} running on engine {', '.join(map(str, sorted(standing.engines)))}"
    elif standing.running and standing.done < standing.wanted:
        line += f", {standing.running:,} were running when it ended"
    if standing.prompts_per_s is not None:
        line += f", {standing.prompts_per_s:,.1f} prompts/s"
    if not standing.errors:
        return [line]
    reasons: Counter[str] = Counter()
    for name in standing.shards_with_errors[:SHARDS_LOOKED_INTO]:
        if store.exists(name):
            reasons.update(error for error in read_table(store, name)["error"].to_pylist() if error is not None)
    lines = [f"{line}, {standing.errors:,} with an error instead of an answer"]
    return lines + [f"      {count:,} times: {reason}" for reason, count in reasons.most_common(3)]


FAULTS = {"engine lost", "start failed", "checkpoint failed", "shard damaged", "place given up"}


def rows_done(store: Store) -> Counter[str]:
    """Rows on disk by the digest in the shards' names. Names are taken at their word: `wdct evaluate` verifies the contents."""
    done: Counter[str] = Counter()
    for name in store.names("answers"):
        if (key := parse_name(name)) is not None:
            done[key.checkpoint_digest] += key.stop - key.start
    return done


def unfinished_text(store: Store, config: Config, record: Mapping[str, Any]) -> str | None:
    """A sentence on how much of the plan is on disk, for whoever reads figures of it; None where all is."""
    digests = {checkpoint["digest"][:DIGEST_LENGTH] for checkpoint in record.get("checkpoints", [])}
    planned = record.get("prompts", {}).get("count", 0) * config.trials * len(digests)
    done = rows_done(store)
    rows = sum(done[digest] for digest in digests)
    return f"not finished: {rows:,} of {planned:,} prompts are done; `wdct evaluate` goes on from here" if rows < planned else None


def _state(store: Store, record: dict[str, Any], wanted: int, done: Counter[str], events: list[dict[str, Any]]) -> str:
    if _is_locked(store):
        return "running"
    digests = [checkpoint["digest"][:DIGEST_LENGTH] for checkpoint in record.get("checkpoints", [])]
    if digests and wanted and all(done[digest] >= wanted for digest in digests) and not record.get("failed_checkpoints"):
        return "complete"
    if _is_heard_of(store, events):
        return "running, or killed: an object store does not tell; see the time of its last event"
    return "not running, incomplete; the same `wdct evaluate` goes on from here"


def _is_locked(store: Store) -> bool:
    """Whether a driver on this machine holds the run; unknown, hence False, on an object store."""
    if store.local is None or not (store.local / LOCK).exists():
        return False
    # shared, for which reading is enough: whoever looks may have no right to write
    handle = os.open(store.local / LOCK, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _is_heard_of(store: Store, events: list[dict[str, Any]]) -> bool:
    """Whether the log of a run on an object store does not say that its last session has ended."""
    return store.local is None and bool(events) and events[-1]["event"] != CLOSED
