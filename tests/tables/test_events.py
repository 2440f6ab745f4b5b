"""The log of events."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.tables.events import EventLog, read_events
from wdct_dist.tables.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    return store


def test_events_are_read_back_in_order_with_their_time(store: Store) -> None:
    log = EventLog(store)
    log.add("engine starting", engine=0)
    log.add("engine lost", reason="原因")
    events = read_events(store)
    assert [event["event"] for event in events] == ["engine starting", "engine lost"]
    assert events[1]["reason"] == "原因"
    assert events[0]["time"] <= events[1]["time"]


def test_a_later_session_adds_to_the_log(store: Store) -> None:
    EventLog(store).add("first")
    EventLog(store).add("second")
    assert [event["event"] for event in read_events(store)] == ["first", "second"]


def test_a_line_that_a_crash_cut_short_is_left_out(store: Store) -> None:
    EventLog(store).add("whole")
    store.append("events.jsonl", b'{"time": "2026')
    assert [event["event"] for event in read_events(store)] == ["whole"]


def test_a_run_without_events_has_none(store: Store) -> None:
    assert read_events(store) == []
