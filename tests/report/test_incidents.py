"""What went wrong in a run, from its events."""

from __future__ import annotations

from typing import Any

from wdct_dist.report.incidents import MOST, incidents_table


def event(name: str, second: int = 0, **said: Any) -> dict[str, Any]:
    return {"time": f"2026-01-01T00:00:{second:02}.000+00:00", "event": name, **said}


def test_incidents_stand_in_order_with_their_reasons_and_ordinary_events_do_not() -> None:
    table = incidents_table(
        [
            event("plan", prompts=4),
            event("shard damaged", shard="answers/x.arrow", reason="cut short"),
            event("engine started", 1, engine=0, checkpoint="a"),
            event("engine lost", 2, engine=0, reason="killed", in_flight=["answers/y.arrow"]),
            event("stopping", 3, on="SIGTERM", after="the units in flight"),
        ]
    )
    assert table is not None
    assert [row[1:] for row in table.rows] == [
        ("shard damaged", "-", "answers/x.arrow", "cut short"),
        ("engine lost", "0", "-", "killed"),
        ("stopping", "-", "-", "SIGTERM"),
    ]


def test_a_run_without_trouble_has_no_table() -> None:
    assert incidents_table([event("plan"), event("unit done", 1, shard="x", engine=0)]) is None


def test_of_many_the_latest_are_shown_and_counted() -> None:
    table = incidents_table([event("engine lost", engine=number, reason="killed") for number in range(MOST + 5)])
    assert table is not None
    assert (len(table.rows), table.rows[0][2]) == (MOST, "5")
    assert table.notes[0] == f"the latest of {MOST + 5}; all are in events.jsonl"
