"""Which engine does which unit next. Pure: no clock, no Ray, no files.

An engine stays with its checkpoint while that has units; then it takes the checkpoint that most needs one. A unit that was in
flight when its engine died is *suspect*: it is run again alone, so that the next death is surely its own. A suspect that kills
again is split; a single prompt that does so is recorded as an error, and everything else has its answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wdct_dist.dispatch.plan import Unit

SPLIT_PARTS = 8
"""Parts that a suspect is split into: 256 prompts are down to the one at fault after three deaths."""


@dataclass(frozen=True, slots=True)
class Load:
    """The engine takes this checkpoint."""

    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Run:
    """The engine does this unit."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class Record:
    """This unit is not done: its prompts are recorded with this error."""

    unit: Unit
    error: str


Action = Load | Run | Record


@dataclass(slots=True)
class _Place:
    """A place in the pool: the engine in it may be replaced, the place stays."""

    checkpoint_id: str | None = None
    in_flight: list[Unit] = field(default_factory=list)
    deaths: int = 0
    retired: str | None = None
    serving_suspect: bool = False


@dataclass(slots=True)
class _Queue:
    """What is left of one checkpoint."""

    fresh: deque[Unit] = field(default_factory=deque)
    suspects: deque[Unit] = field(default_factory=deque)
    start_failures: int = 0
    failed: str | None = None

    @property
    def num_units(self) -> int:
        return 0 if self.failed is not None else len(self.fresh) + len(self.suspects)


class Scheduler:
    """Gives units to the places 0 to `num_engines` − 1 and learns from what becomes of them."""

    def __init__(
        self, units: Iterable[Unit], *, num_engines: int = 1, units_in_flight: int = 2, max_attempts: int = 2, max_restarts: int = 5
    ) -> None:
        self._queues: dict[str, _Queue] = {}
        self._places: list[_Place] = []
        self.set_places(num_engines)
        self._attempts: dict[Unit, int] = {}
        self._units_in_flight = units_in_flight
        self._max_attempts = max_attempts
        self._max_restarts = max_restarts
        self._poisonous: deque[Record] = deque()
        self._stopped = False
        for unit in units:
            self._queues.setdefault(unit.checkpoint_id, _Queue()).fresh.append(unit)

    def set_places(self, num_engines: int) -> None:
        """Fixes the size of the pool; before the first `next`."""
        self._places = [_Place() for _ in range(num_engines)]

    def next(self, engine: int) -> Action | None:
        """What the engine does now, or None: nothing for it at present (or ever, see `finished`)."""
        place = self._places[engine]
        if place.retired is not None:
            return None
        if self._poisonous and not self._stopped:
            record = self._poisonous.popleft()
            place.in_flight.append(record.unit)
            return record
        if self._stopped or place.serving_suspect:
            return None
        queue = self._queues.get(place.checkpoint_id or "")
        if queue is not None and queue.num_units > 0:
            if queue.fresh and len(place.in_flight) < self._units_in_flight:
                return self._give(place, queue.fresh.popleft())
            if not queue.fresh and not place.in_flight:
                place.serving_suspect = True
                return self._give(place, queue.suspects.popleft())
            return None
        if place.in_flight:
            return None
        wanted = self._most_wanting()
        if wanted is None:
            return None
        place.checkpoint_id = wanted
        return Load(wanted)

    def done(self, engine: int, unit: Unit) -> None:
        """The unit's shard is written."""
        place = self._places[engine]
        self._take(place, unit)
        place.deaths = 0
        self._attempts.pop(unit, None)

    def lost(self, engine: int, why: str) -> None:
        """The engine died; what it had in flight is suspect, and the place needs a new engine."""
        place = self._places[engine]
        alone = len(place.in_flight) == 1
        for unit in place.in_flight:
            self._suspect(unit, why, alone)
        place.in_flight.clear()
        place.serving_suspect = False
        place.checkpoint_id = None
        place.deaths += 1
        if place.deaths > self._max_restarts:
            place.retired = why

    def started(self, checkpoint_id: str) -> None:
        """The checkpoint can be loaded: earlier failures were not its own."""
        self._queues[checkpoint_id].start_failures = 0

    def start_failed(self, engine: int, checkpoint_id: str, why: str, *, allowed: int) -> bool:
        """The checkpoint did not start. More than `allowed` times in a row, and it has failed; returns whether it has."""
        self._places[engine].checkpoint_id = None
        queue = self._queues[checkpoint_id]
        queue.start_failures += 1
        if queue.start_failures > allowed:
            queue.failed = queue.failed or why
        return queue.failed is not None

    def stop(self) -> None:
        """No more units are given; those in flight may end."""
        self._stopped = True

    def in_flight(self, engine: int) -> list[Unit]:
        return list(self._places[engine].in_flight)

    @property
    def finished(self) -> bool:
        """Nothing is in flight, and nothing more can be given."""
        if any(place.in_flight for place in self._places):
            return False
        return self._stopped or self.num_pending == 0 or all(place.retired is not None for place in self._places)

    @property
    def num_pending(self) -> int:
        """Units that still can be done and are not in flight."""
        return sum(queue.num_units for queue in self._queues.values()) + len(self._poisonous)

    @property
    def failed_checkpoints(self) -> dict[str, str]:
        """Checkpoints that could not be evaluated, with the reason."""
        return {name: queue.failed for name, queue in self._queues.items() if queue.failed is not None}

    @property
    def retired(self) -> dict[int, str]:
        """Places given up, with the reason of the last death."""
        return {number: place.retired for number, place in enumerate(self._places) if place.retired is not None}

    def _give(self, place: _Place, unit: Unit) -> Run:
        place.in_flight.append(unit)
        return Run(unit)

    @staticmethod
    def _take(place: _Place, unit: Unit) -> None:
        if unit in place.in_flight:
            place.in_flight.remove(unit)
        if not place.in_flight:
            place.serving_suspect = False

    def _suspect(self, unit: Unit, why: str, alone: bool) -> None:
        queue = self._queues[unit.checkpoint_id]
        if alone:
            self._attempts[unit] = self._attempts.get(unit, 0) + 1
        attempts = self._attempts.get(unit, 0)
        if attempts < self._max_attempts:
            queue.suspects.append(unit)
        elif unit.num_prompts == 1:
            self._poisonous.append(Record(unit, f"{why}; the prompt was alone in the engine, {attempts} times"))
        else:
            for part in unit.split(SPLIT_PARTS):
                # the parts come from a unit that killed alone: one more death is enough to split further
                self._attempts[part] = self._max_attempts - 1 if part.num_prompts > 1 else 0
                queue.suspects.append(part)

    def _most_wanting(self) -> str | None:
        """The checkpoint with the most units for each engine that is with it already."""
        engines: dict[str | None, int] = {}
        for place in self._places:
            if place.retired is None:
                engines[place.checkpoint_id] = engines.get(place.checkpoint_id, 0) + 1
        best: tuple[int, int, int] | None = None
        wanted = None
        for order, (name, queue) in enumerate(self._queues.items()):
            if queue.num_units == 0:
                continue
            rank = (engines.get(name, 0), -queue.num_units, order)
            if best is None or rank < best:
                best, wanted = rank, name
        return wanted
