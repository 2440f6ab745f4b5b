"""What went wrong in a run, and when: from its events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wdct_dist.report.layout import Table

INCIDENTS = (
    "shard damaged",
    "start failed",
    "swap refused",
    "swap failed",
    "engine lost",
    "place waits",
    "place given up",
    "checkpoint failed",
    "head lost",
    "head back",
    "stopping",
    "task lost",
    "task failed",
    "stage diverged",
)
"""Events that a run without trouble does not have."""

MOST = 200
"""Rows of the table, the latest; all are in events.jsonl."""


def incidents_table(events: Sequence[Mapping[str, Any]]) -> Table | None:
    """One row for each incident, in order; `events` as `read_events` returns them. None where there was none."""
    found = [event for event in events if event["event"] in INCIDENTS]
    rows = tuple(
        (
            str(event["time"]),
            str(event["event"]),
            str(event.get("engine", "-")),
            str(event.get("checkpoint", event.get("shard", event.get("task", event.get("stage", "-"))))),
            str(event.get("reason", event.get("on", "-"))),
        )
        for event in found[-MOST:]
    )
    if not rows:
        return None
    notes: tuple[str, ...] = ("what they cost was done again, unless the run says that it is not finished",)
    if len(found) > MOST:
        notes = (f"the latest of {len(found):,}; all are in events.jsonl", *notes)
    return Table("What went wrong", "time", ("event", "engine", "checkpoint or shard", "reason"), rows, notes)
