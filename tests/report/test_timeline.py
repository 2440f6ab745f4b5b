"""What engines did when, from events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wdct_dist.report.timeline import Span, sessions, sessions_table

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def event(at_s: float, name: str, **facts: Any) -> dict[str, Any]:
    return {"time": (BEGAN + timedelta(seconds=at_s)).isoformat(timespec="milliseconds"), "event": name, **facts}


def given(at_s: float, shard: str, engine: int = 0, checkpoint: str = "a") -> dict[str, Any]:
    return event(at_s, "unit given", engine=engine, checkpoint=checkpoint, shard=shard)


def done(at_s: float, shard: str, engine: int = 0, checkpoint: str = "a") -> dict[str, Any]:
    return event(at_s, "unit done", engine=engine, checkpoint=checkpoint, shard=shard)


def test_an_engine_loads_evaluates_waits_and_swaps() -> None:
    [session] = sessions(
        [
            event(0, "plan"),
            event(1, "pool", engines=1, gpus=2),
            event(1, "engine starting", engine=0, checkpoint="a"),
            event(11, "engine started", engine=0, checkpoint="a", seconds=10),
            given(11, "1"), given(11, "2"), done(20, "1"), done(31, "2"),
            event(41, "engine swapping", engine=0, checkpoint="b"),
            event(43, "engine swapped", engine=0, checkpoint="b", seconds=2),
            given(43, "3", checkpoint="b"), done(50, "3", checkpoint="b"),
            event(61, "closed"),
        ]
    )  # fmt: skip
    assert session.spans == (
        Span(0, "loading", "a", 1, 11),
        Span(0, "evaluating", "a", 11, 31),
        Span(0, "idle", "a", 31, 41),
        Span(0, "swapping", "b", 41, 43),
        Span(0, "evaluating", "b", 43, 50),
        Span(0, "idle", "b", 50, 61),
    )
    assert session.seconds_by_state() == {"loading": 10, "swapping": 2, "evaluating": 27, "idle": 21}
    assert session.gpu_hours == 2 * 60 / 3600


def test_without_ray_the_start_is_told_by_its_seconds() -> None:
    [session] = sessions(
        [event(0, "plan"), event(5, "engine started", engine=0, checkpoint="a", seconds=4), given(5, "1"), done(9, "1"), event(9, "closed")]
    )
    assert [(span.state, span.start_s, span.end_s) for span in session.spans][-1] == ("evaluating", 5, 9)
    assert session.seconds_by_state()["loading"] == 4


def test_a_lost_engine_does_nothing_until_another_one_starts() -> None:
    [session] = sessions(
        [
            event(0, "plan"),
            event(0, "engine starting", engine=0, checkpoint="a"),
            event(2, "engine started", engine=0, checkpoint="a", seconds=2),
            given(2, "1"),
            event(4, "engine lost", engine=0, reason="killed"),
            event(7, "engine starting", engine=0, checkpoint="a"),
            event(8, "engine started", engine=0, checkpoint="a", seconds=1),
            event(9, "closed"),
        ]
    )
    assert [(span.state, span.start_s, span.end_s) for span in session.spans] == [
        ("loading", 0, 2), ("evaluating", 2, 4), ("loading", 7, 8), ("idle", 8, 9),
    ]  # fmt: skip


def test_a_killed_driver_ends_its_session_with_its_last_event() -> None:
    first, second = sessions(
        [
            event(0, "plan"), event(0, "engine starting", engine=0, checkpoint="a"),
            event(3, "engine started", engine=0, checkpoint="a", seconds=3),
            event(100, "plan"), event(101, "engine starting", engine=1, checkpoint="a"), event(102, "closed"),
        ]
    )  # fmt: skip
    assert (first.number, first.seconds) == (1, 3)
    assert (second.number, second.seconds, second.spans) == (2, 2, (Span(1, "loading", "a", 1, 2),))


def test_a_session_that_found_everything_done_has_no_engines() -> None:
    assert sessions([event(0, "plan"), event(0, "closed")]) == []


def test_pauses_too_short_to_be_seen_are_not_drawn_but_counted() -> None:
    events = [event(0, "plan"), event(0, "engine started", engine=0, checkpoint="a", seconds=0)]
    for number in range(100):
        events += [given(10 * number, str(number)), done(10 * number + 9.9, str(number))]
    [session] = sessions([*events, event(1000, "closed")])
    assert session.drawn(1000) == [Span(0, "evaluating", "a", 0, 1000)]
    assert len(session.drawn(10)) == 200
    assert session.seconds_by_state()["idle"] == pytest.approx(10)


def test_of_several_sessions_each_has_its_hours_and_what_they_were_spent_on() -> None:
    first = [event(0, "plan"), event(0, "pool", engines=1, gpus=2), event(0, "engine starting", engine=0, checkpoint="a")]
    first += [event(900, "engine started", engine=0, checkpoint="a", seconds=900), given(900, "1"), event(3600, "engine lost", engine=0)]
    again = [event(7200, "plan"), event(7201, "engine started", engine=0, checkpoint="a", seconds=1), event(7203, "closed")]
    found = sessions([*first, event(3600, "closed"), *again])
    table = sessions_table(found)
    assert table is not None
    assert table.rows == (
        ("1, 2026-01-01 00:00:00 UTC", "3,600.0", "1.00", "2.00", "25%", "0%", "75%", "0%"),
        ("2, 2026-01-01 02:00:00 UTC", "3.0", "0.00", "0.00", "33%", "0%", "0%", "67%"),
    )
    assert sessions_table(found[:1]) is None
