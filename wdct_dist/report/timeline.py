"""What each engine of a run did when: loading, swapping, evaluating or idle. From the events of the run alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from wdct_dist.report.layout import Table
from wdct_dist.tables.events import CLOSED

State = Literal["loading", "swapping", "evaluating", "idle"]
STATES: tuple[State, ...] = ("loading", "swapping", "evaluating", "idle")

BEGINS: Mapping[str, State] = {"engine starting": "loading", "engine swapping": "swapping"}
ENDS: Mapping[str, State] = {"engine started": "loading", "engine swapped": "swapping"}
GONE = {"engine lost", "start failed", "place given up"}
"""Events after which there is no engine in the place."""
NOT_TAKEN = {"swap failed", "swap refused"}

SHORTEST = 1 / 500
"""Share of a drawing's seconds under which a pause is not drawn apart from what came before it."""


@dataclass(frozen=True, slots=True)
class Span:
    """One engine in one state, in seconds since its session began."""

    engine: int
    state: State
    checkpoint_id: str
    """Empty where it has none."""
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Session:
    """One call of `wdct evaluate` that had an engine."""

    number: int
    """From 1, those without engines counted too."""
    start: str
    """ISO 8601."""
    seconds: float
    gpus_an_engine: int
    spans: tuple[Span, ...]
    """By engine and time."""

    @property
    def begun(self) -> str:
        """To the second, for people."""
        return f"{datetime.fromisoformat(self.start).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

    def drawn(self, whole_s: float) -> list[Span]:
        """The spans with those of the same state and checkpoint as one, over pauses too short to be seen beside `whole_s` seconds."""
        return _without_pauses(self.spans, whole_s * SHORTEST)

    def seconds_by_state(self) -> dict[State, float]:
        """Summed over the engines."""
        return {state: sum(span.end_s - span.start_s for span in self.spans if span.state == state) for state in STATES}

    @property
    def gpu_hours(self) -> float:
        return self.gpus_an_engine * sum(self.seconds_by_state().values()) / 3600


def sessions(events: Sequence[Mapping[str, Any]]) -> list[Session]:
    """The sessions that had engines, in order. `events` as `read_events` returns them."""
    groups: list[list[Mapping[str, Any]]] = []
    for event in events:
        if event["event"] == "plan" or not groups:
            groups.append([])
        groups[-1].append(event)
    found = [_session(number, group) for number, group in enumerate(groups, start=1)]
    return [session for session in found if session.spans]


def sessions_table(found: Sequence[Session]) -> Table | None:
    """One row for each session; None where there is only one, of which the timeline says all. `found` as `sessions` returns it."""
    if len(found) < 2:
        return None
    rows = []
    for session in found:
        spent = session.seconds_by_state()
        whole = sum(spent.values())
        shares = (f"{spent[state] / whole:.0%}" if whole else "-" for state in STATES)
        rows.append(
            (f"{session.number}, {session.begun}", f"{session.seconds:,.1f}", f"{whole / 3600:,.2f}", f"{session.gpu_hours:,.2f}", *shares)
        )
    notes = ("engine-hours: from the start of an engine to its end; the shares are of these",)
    return Table("Sessions", "session, begun", ("seconds", "engine-hours", "GPU-hours", *STATES), tuple(rows), notes)


@dataclass(slots=True)
class _Engine:
    """An engine as the events so far leave it."""

    number: int
    since_s: float = 0.0
    state: State | None = None
    """None: there is none."""
    checkpoint_id: str = ""
    in_flight: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)

    def turn(self, state: State | None, at_s: float, checkpoint_id: str | None = None) -> None:
        if self.state is not None and at_s > self.since_s:
            self.spans.append(Span(self.number, self.state, self.checkpoint_id, self.since_s, at_s))
        if state is None:
            self.in_flight.clear()
        self.state, self.since_s = state, max(at_s, self.since_s)
        self.checkpoint_id = self.checkpoint_id if checkpoint_id is None else checkpoint_id


def _session(number: int, events: Sequence[Mapping[str, Any]]) -> Session:
    began = _time(events[0])
    ended = (_time(events[-1]) - began).total_seconds()
    engines: dict[int, _Engine] = {}
    for event in events:
        at_s = (_time(event) - began).total_seconds()
        if event["event"] == CLOSED:
            ended = at_s
            break
        if "engine" in event:
            place = event["engine"]
            _follow(engines.setdefault(place, _Engine(place)), event, at_s)
    for engine in engines.values():
        engine.turn(None, ended)
    spans = tuple(span for _, engine in sorted(engines.items()) for span in engine.spans)
    gpus = next((int(event["gpus"]) for event in events if event["event"] == "pool"), 0)
    return Session(number, str(events[0]["time"]), ended, gpus, spans)


def _follow(engine: _Engine, event: Mapping[str, Any], at_s: float) -> None:
    kind = event["event"]
    if kind in BEGINS:
        engine.turn(BEGINS[kind], at_s, event["checkpoint"])
    elif kind in ENDS:
        if engine.state not in BEGINS.values():  # run without Ray: only the end is told, with its seconds
            engine.turn(ENDS[kind], max(engine.since_s, at_s - event["seconds"]), event["checkpoint"])
        engine.turn("evaluating" if engine.in_flight else "idle", at_s, event["checkpoint"])
    elif kind in GONE:
        engine.turn(None, at_s)
    elif kind in NOT_TAKEN:
        engine.turn("idle", at_s)
    elif kind == "unit given":
        engine.in_flight.add(event["shard"])
        if engine.state == "idle":
            engine.turn("evaluating", at_s, event["checkpoint"])
    elif kind == "unit done":
        engine.in_flight.discard(event["shard"])
        if engine.state == "evaluating" and not engine.in_flight:
            engine.turn("idle", at_s)


def _without_pauses(spans: Sequence[Span], shortest_s: float) -> list[Span]:
    kept: list[Span] = []
    for span in spans:
        before = kept[-1] if kept else None
        short = span.state == "idle" and span.end_s - span.start_s < shortest_s
        if (
            before is not None
            and (before.engine, before.end_s) == (span.engine, span.start_s)
            and (short or (before.state, before.checkpoint_id) == (span.state, span.checkpoint_id))
        ):
            kept[-1] = Span(before.engine, before.state, before.checkpoint_id, before.start_s, span.end_s)
        else:
            kept.append(span)
    return kept


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])
