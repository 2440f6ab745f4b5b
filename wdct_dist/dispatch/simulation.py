"""A run on paper: the scheduler that runs the engines, against engines that only take time. Pure: the clock is a number.

`wdct plan` shows its outcome on estimates, `benchmarks/simulate.py` holds it against a lower bound. A simulated engine does the units that
it was given one after the other, as a real one does; starts, swaps and units take as long as the world says.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.scheduler import Load, Record, Scheduler


class World(Protocol):
    """How long things take."""

    def load_s(self, engine: int, checkpoint_id: str, after: str | None) -> tuple[float, bool]:
        """Until an engine that has `after` (None: a new one) is ready with the checkpoint, and whether it was a swap."""

    def unit_s(self, engine: int, unit: Unit) -> float:
        """Until an engine that does nothing else has done the unit."""


@dataclass(frozen=True, slots=True, order=True)
class Loss:
    """An engine dies."""

    time_s: float
    engine: int
    for_good: bool
    """No other one takes its place: its node is gone."""


@dataclass(slots=True)
class Course:
    """How the evaluation of one checkpoint went."""

    checkpoint_id: str
    engines: set[int] = field(default_factory=set)
    began_s: float = 0.0
    ended_s: float = 0.0
    busy_s: float = 0.0
    """Engine time spent on units that were done."""


@dataclass(slots=True)
class Schedule:
    """How a simulated run went."""

    courses: dict[str, Course] = field(default_factory=dict)
    """By checkpoint id, in the order in which they were begun."""
    makespan_s: float = 0.0
    num_starts: int = 0
    num_swaps: int = 0
    loading_s: float = 0.0
    """Engine time spent on starts and swaps."""
    num_units: int = 0
    num_prompts: int = 0


@dataclass(frozen=True, slots=True)
class Estimated:
    """A world in which everything takes as long as it is expected to."""

    costs: Costs

    def load_s(self, engine: int, checkpoint_id: str, after: str | None) -> tuple[float, bool]:
        return self.costs.load_s(checkpoint_id, after), self.costs.swaps(checkpoint_id, after)

    def unit_s(self, engine: int, unit: Unit) -> float:
        return self.costs.unit_s(unit)


@dataclass(slots=True)
class _Engine:
    """What an engine does, and what waits in front of it."""

    checkpoint_id: str | None = None
    loading: bool = False
    given: deque[Unit] = field(default_factory=deque)
    life: int = 0
    """Counts the deaths: what an engine was about to do before one does not happen."""
    gone: bool = False


def simulate(scheduler: Scheduler, num_engines: int, world: World, losses: Iterable[Loss] = ()) -> Schedule:
    """Runs the scheduler's units to the end; the schedule says what came when."""
    scheduler.set_places(num_engines)
    return _Simulation(scheduler, num_engines, world, losses).run()


class _Simulation:
    def __init__(self, scheduler: Scheduler, num_engines: int, world: World, losses: Iterable[Loss]) -> None:
        self._scheduler = scheduler
        self._world = world
        self._engines = [_Engine() for _ in range(num_engines)]
        self._schedule = Schedule()
        self._now = 0.0
        self._count = 0
        self._events: list[tuple[float, int, int, int, float, bool]] = []
        """Time, number, engine, its life (−1: it dies, for good; −2: it dies), seconds that it took, whether it was a swap."""
        for loss in losses:
            self._push(loss.time_s, loss.engine, -1 if loss.for_good else -2)

    def run(self) -> Schedule:
        self._ask()
        while self._events and not self._scheduler.finished:
            self._now, _, number, life, seconds, swapped = heapq.heappop(self._events)
            engine = self._engines[number]
            if life < 0:
                self._die(number, engine, for_good=life == -1)
            elif life != engine.life:
                continue
            elif engine.loading:
                engine.loading = False
                assert engine.checkpoint_id is not None
                self._scheduler.started(engine.checkpoint_id, seconds, swapped=swapped)
            else:
                self._finish(number, engine, seconds)
            self._ask()
        return self._schedule

    def _ask(self) -> None:
        for number in self._scheduler.to_ask:
            engine = self._engines[number]
            while not (engine.loading or engine.gone) and (action := self._scheduler.next(number)) is not None:
                if isinstance(action, Load):
                    self._load(number, engine, action.checkpoint_id)
                elif isinstance(action, Record):
                    self._scheduler.done(number, action.unit)
                else:
                    engine.given.append(action.unit)
                    if len(engine.given) == 1:
                        self._begin(number, engine)

    def _load(self, number: int, engine: _Engine, checkpoint_id: str) -> None:
        seconds, swapped = self._world.load_s(number, checkpoint_id, engine.checkpoint_id)
        engine.checkpoint_id, engine.loading = checkpoint_id, True
        course = self._schedule.courses.setdefault(checkpoint_id, Course(checkpoint_id, began_s=self._now))
        course.engines.add(number)
        self._schedule.num_swaps += swapped
        self._schedule.num_starts += not swapped
        self._schedule.loading_s += seconds
        self._push(self._now + seconds, number, engine.life, seconds, swapped)

    def _begin(self, number: int, engine: _Engine) -> None:
        seconds = self._world.unit_s(number, engine.given[0])
        self._push(self._now + seconds, number, engine.life, seconds)

    def _finish(self, number: int, engine: _Engine, seconds: float) -> None:
        unit = engine.given.popleft()
        self._scheduler.done(number, unit, seconds)
        if engine.given:
            self._begin(number, engine)
        course = self._schedule.courses[unit.checkpoint_id]
        course.ended_s = self._schedule.makespan_s = self._now
        course.busy_s += seconds
        self._schedule.num_units += 1
        self._schedule.num_prompts += unit.num_prompts

    def _die(self, number: int, engine: _Engine, *, for_good: bool) -> None:
        if engine.gone:
            return
        if engine.loading:
            assert engine.checkpoint_id is not None
            self._scheduler.start_failed(number, engine.checkpoint_id, "lost", allowed=4)
        else:
            self._scheduler.lost(number, "lost")
        self._engines[number] = _Engine(life=engine.life + 1, gone=for_good)

    def _push(self, time_s: float, engine: int, life: int, seconds: float = 0.0, swapped: bool = False) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, engine, life, seconds, swapped))
