"""Which engine does which unit next. Pure: no clock, no Ray, no files; seconds come in with what is reported.

An engine stays with its checkpoint while that has units. Then it takes a checkpoint that no engine has: one that would need more than
a fair share of the time that is left comes first, then those that it can swap to, the longest before the others. When every checkpoint
has an engine it joins the one that would be done last, if loading it takes less time than the engines there still need. Where several
engines share what is left of a checkpoint, and none is without an engine, units become smaller towards the end, so that all end together.

The whole pool is started at once. A place that the cluster has no room for, as after the loss of a node, is parked: the others do its work,
and it is nobody's fault.

A unit that was in flight when its engine died is *suspect*: it is run again alone, so that the next death is surely its own. A suspect
that kills again is split; a single prompt that does so is recorded as an error, and everything else has its answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit

SPLIT_PARTS = 8
"""Parts that a suspect is split into: 256 prompts are down to the one at fault after three deaths."""

IN_FLIGHT_PART = 0.5
"""Towards the end an engine has at most this part of what is left for each engine in flight."""

MEMORY = 0.8
"""What a unit counts for an engine's pace when the next one is done."""

SMALLEST_UNIT_S = 1.0
"""Units are not cut below this: writing a shard and telling of it take their time too."""

SMALLEST_UNIT_PROMPTS = 8


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
class _Queue:
    """What is left of one checkpoint."""

    checkpoint_id: str
    order: int
    fresh: deque[Unit] = field(default_factory=deque)
    suspects: deque[Unit] = field(default_factory=deque)
    num_prompts: dict[str, int] = field(default_factory=dict)
    """By variant, of the fresh and the suspect units."""
    num_engines: int = 0
    """Places that have the checkpoint or load it."""
    num_loads: int = 0
    num_loads_judged: int = 0
    """Loads given up to the last failure that was counted: those that fail later belong to the same incident."""
    start_failures: int = 0
    failed: str | None = None

    @property
    def num_units(self) -> int:
        return 0 if self.failed is not None else len(self.fresh) + len(self.suspects)

    def add(self, unit: Unit, *, suspect: bool) -> None:
        (self.suspects if suspect else self.fresh).append(unit)
        self.num_prompts[unit.variant] = self.num_prompts.get(unit.variant, 0) + unit.num_prompts

    def take(self, unit: Unit) -> Unit:
        """Counts the unit, taken from one of the deques, as no longer waiting."""
        self.num_prompts[unit.variant] -= unit.num_prompts
        return unit

    def left_s(self, costs: Costs) -> float:
        """Engine time that the waiting units take."""
        return sum(number * costs.prompt_s(self.checkpoint_id, variant) for variant, number in self.num_prompts.items())


@dataclass(slots=True)
class _Place:
    """A place in the pool: the engine in it may be replaced, the place stays."""

    queue: _Queue | None = None
    load_number: int = 0
    in_flight: list[Unit] = field(default_factory=list)
    deaths: int = 0
    parked: bool = False
    retired: str | None = None
    serving_suspect: bool = False
    expected_s: float = 0.0
    taken_s: float = 0.0
    """What the last units of the engine were expected to take, and took."""

    @property
    def pace(self) -> float:
        """How many times as long as others the engine needs."""
        return self.taken_s / self.expected_s if self.expected_s > 0 else 1.0

    def learn(self, expected_s: float, taken_s: float) -> None:
        self.expected_s = MEMORY * self.expected_s + expected_s
        self.taken_s = MEMORY * self.taken_s + taken_s


class Scheduler:
    """Gives units to the places 0 to `num_engines` − 1 and learns from what becomes of them."""

    def __init__(
        self,
        units: Iterable[Unit],
        *,
        num_engines: int = 1,
        units_in_flight: int = 2,
        max_attempts: int = 2,
        max_restarts: int = 5,
        costs: Costs | None = None,
    ) -> None:
        self.costs = costs or Costs()
        self._queues: dict[str, _Queue] = {}
        self._waiting: dict[str, _Queue] = {}
        """The queues that have units to give."""
        self._places: list[_Place] = []
        self._to_ask: set[int] = set()
        self._num_in_flight = 0
        self._num_retired = 0
        self._num_parked = 0
        self._num_done_since_all_asked = 0
        self._time_left_s = math.inf
        self.set_places(num_engines)
        self._attempts: dict[Unit, int] = {}
        self._units_in_flight = units_in_flight
        self._max_attempts = max_attempts
        self._max_restarts = max_restarts
        self._poisonous: deque[Record] = deque()
        self._stopped = False
        for unit in units:
            queue = self._queues.setdefault(unit.checkpoint_id, _Queue(unit.checkpoint_id, len(self._queues)))
            self._add(queue, unit, suspect=False)

    def set_places(self, num_engines: int) -> None:
        """Fixes the size of the pool; before the first `next`."""
        self._places = [_Place() for _ in range(num_engines)]
        self._to_ask = set(range(num_engines))

    @property
    def to_ask(self) -> list[int]:
        """Places for which `next` may have something; of the others it is known that there is nothing for them at present."""
        return sorted(self._to_ask)

    def next(self, engine: int) -> Action | None:
        """What the engine does now, or None: nothing for it at present (or ever, see `finished`)."""
        action = self._choose(self._places[engine])
        if action is None:
            self._to_ask.discard(engine)
        return action

    def upcoming(self, engine: int) -> str | None:
        """The checkpoint that this place would take next if its present one were done now; None where there is none."""
        place = self._places[engine]
        wanted = None if self._stopped else self._wanted(place, but=place.queue)
        return None if wanted is None else wanted.checkpoint_id

    def done(self, engine: int, unit: Unit, seconds: float | None = None) -> None:
        """The unit's shard is written; `seconds`: how long the engine was busy with it, where it was measured."""
        place = self._places[engine]
        self._take_back(place, unit)
        place.deaths = 0
        was_recorded = self._attempts.pop(unit, 0) >= self._max_attempts
        if seconds is not None and not was_recorded:
            self.costs.unit_took(unit, seconds)
            place.learn(self.costs.unit_s(unit), seconds)
        self._to_ask.add(engine)
        self._num_done_since_all_asked += 1
        if self._num_done_since_all_asked >= len(self._places):
            self._reckon()
            self._ask_all()  # what did not pay may pay by what was learnt since

    def lost(self, engine: int, why: str) -> None:
        """The engine died; what it had in flight is suspect, and the place needs a new engine."""
        place = self._places[engine]
        alone = len(place.in_flight) == 1
        self._num_in_flight -= len(place.in_flight)
        for unit in place.in_flight:
            self._suspect(unit, why, alone)
        place.in_flight.clear()
        place.serving_suspect = False
        place.expected_s = place.taken_s = 0.0
        self._leave(place)
        place.deaths += 1
        if place.deaths > self._max_restarts:
            self._retire(place, why)
        self._ask_all()

    def started(self, checkpoint_id: str, seconds: float | None = None, *, swapped: bool = False) -> None:
        """The checkpoint is loaded, after `seconds`, into a new engine or (`swapped`) a live one: earlier failures were not its own."""
        self._queues[checkpoint_id].start_failures = 0
        if seconds is not None:
            self.costs.load_took(checkpoint_id, seconds, swapped=swapped)

    def start_failed(self, engine: int, checkpoint_id: str, why: str, *, allowed: int) -> bool:
        """The checkpoint did not start. More than `allowed` times in a row, and it has failed; returns whether it has.

        Loads that were under way together and fail together, as when a node is lost, are one time.
        """
        place = self._places[engine]
        queue = self._queues[checkpoint_id]
        self._leave(place)
        if place.load_number > queue.num_loads_judged:
            queue.start_failures += 1
            queue.num_loads_judged = queue.num_loads
        if queue.start_failures > allowed:
            queue.failed = queue.failed or why
            self._waiting.pop(checkpoint_id, None)
        self._ask_all()
        return queue.failed is not None

    def park(self, engine: int) -> None:
        """The place has no room in the cluster: what its engine was to load is free for others, and nothing is given until `unpark`."""
        place = self._places[engine]
        assert not place.in_flight, "only a place whose engine is not there yet"
        place.parked = True
        self._num_parked += 1
        self._leave(place)
        self._ask_all()

    def unpark(self, engine: int) -> None:
        """The place has room for an engine again."""
        self._places[engine].parked = False
        self._num_parked -= 1
        self._to_ask.add(engine)

    def give_up(self, engine: int, why: str) -> None:
        """The place, which is parked, has waited for too long."""
        self.unpark(engine)
        self._retire(self._places[engine], why)

    def stop(self) -> None:
        """No more units are given; those in flight may end."""
        self._stopped = True

    def in_flight(self, engine: int) -> list[Unit]:
        return list(self._places[engine].in_flight)

    @property
    def finished(self) -> bool:
        """Nothing is in flight, and nothing more can be given."""
        if self._num_in_flight:
            return False
        return self._stopped or not (self._waiting or self._poisonous) or self._num_retired == len(self._places)

    @property
    def num_pending(self) -> int:
        """Units that still can be done and are not in flight."""
        return sum(queue.num_units for queue in self._waiting.values()) + len(self._poisonous)

    @property
    def failed_checkpoints(self) -> dict[str, str]:
        """Checkpoints that could not be evaluated, with the reason."""
        return {name: queue.failed for name, queue in self._queues.items() if queue.failed is not None}

    @property
    def retired(self) -> dict[int, str]:
        """Places given up, with the reason of the last death."""
        return {number: place.retired for number, place in enumerate(self._places) if place.retired is not None}

    def _choose(self, place: _Place) -> Action | None:
        if place.retired is not None or place.parked:
            return None
        if self._poisonous and not self._stopped:
            record = self._poisonous.popleft()
            self._give(place, record.unit)
            return record
        if self._stopped or place.serving_suspect:
            return None
        queue = place.queue
        if queue is not None and queue.num_units > 0:
            if queue.fresh and len(place.in_flight) < self._units_in_flight:
                fresh = self._take_first(place, queue, queue.fresh)
                return Run(self._give(place, fresh)) if fresh is not None else None
            if not queue.fresh and not place.in_flight:
                place.serving_suspect = True
                suspect = self._take_first(place, queue, queue.suspects)
                assert suspect is not None, "an idle engine has room for a unit"
                return Run(self._give(place, suspect))
            return None
        if place.in_flight:
            return None
        wanted = self._wanted(place)
        if wanted is None:
            return None
        self._join(place, wanted)
        return Load(wanted.checkpoint_id)

    def _wanted(self, place: _Place, but: _Queue | None = None) -> _Queue | None:
        """The checkpoint that the engine takes next, other than `but`; see the policy above."""
        present = place.queue.checkpoint_id if place.queue is not None else None
        left = self._reckon()
        waiting = [queue for queue in self._waiting.values() if queue is not but]
        alone = [queue for queue in waiting if queue.num_engines == 0]
        if alone:

            def urgency(queue: _Queue) -> tuple[bool, bool, float, int]:
                seconds = left[queue.checkpoint_id]
                late = seconds > self._time_left_s
                return not late, not late and not self.costs.swaps(queue.checkpoint_id, present), -seconds, queue.order

            return min(alone, key=urgency)
        shared = [
            queue
            for queue in waiting
            # the whole pool is started at once, whatever earlier runs let expect
            if place.load_number == 0
            or not self.costs.measured
            or left[queue.checkpoint_id] / queue.num_engines > self.costs.load_s(queue.checkpoint_id, present)
        ]
        return min(
            shared,
            key=lambda queue: (-left[queue.checkpoint_id] / queue.num_engines, queue.num_engines, queue.order),
            default=None,
        )

    def _reckon(self) -> dict[str, float]:
        """Engine time left by checkpoint; renews what all engines together still need."""
        left = {queue.checkpoint_id: queue.left_s(self.costs) for queue in self._waiting.values()}
        self._time_left_s = sum(left.values()) / max(1, len(self._places) - self._num_retired - self._num_parked)
        return left

    def _take_first(self, place: _Place, queue: _Queue, units: deque[Unit]) -> Unit | None:
        """The first of the queue's units, or a part of it where the tail needs smaller ones; None where the engine has enough."""
        unit = units.popleft()
        # what has killed alone is split to find the prompt at fault, and only then
        size = self._tail_size(place, queue, unit) if unit not in self._attempts else unit.num_prompts
        if size < unit.num_prompts:
            part, rest = unit.cut(size) if size > 0 else (None, unit)
            units.appendleft(rest)
            if part is None:
                return None
            unit = part
        queue.take(unit)
        self._note(queue)
        return unit

    def _tail_size(self, place: _Place, queue: _Queue, unit: Unit) -> int:
        """Prompts that are given at once, so that no engine, a slow one neither, has much in flight when the last unit is given."""
        if len(self._places) == 1 or not self.costs.measured:
            return unit.num_prompts
        left_s = queue.left_s(self.costs) / queue.num_engines
        load_s = self.costs.load_s(queue.checkpoint_id)
        if queue.num_engines == 1 and left_s <= load_s:
            return unit.num_prompts  # nobody joins for so little
        left_s = min(left_s, max(load_s, self._time_left_s))
        room_s = left_s * IN_FLIGHT_PART / place.pace - sum(map(self.costs.unit_s, place.in_flight))
        if place.in_flight and room_s <= 0:
            return 0
        seconds = max(SMALLEST_UNIT_S, room_s / (self._units_in_flight - len(place.in_flight)))
        return max(SMALLEST_UNIT_PROMPTS, math.ceil(seconds / self.costs.prompt_s(unit.checkpoint_id, unit.variant)))

    def _add(self, queue: _Queue, unit: Unit, *, suspect: bool) -> None:
        queue.add(unit, suspect=suspect)
        self._note(queue)

    def _note(self, queue: _Queue) -> None:
        """Keeps `_waiting` true after a change of the queue."""
        if queue.num_units > 0:
            self._waiting[queue.checkpoint_id] = queue
        else:
            self._waiting.pop(queue.checkpoint_id, None)

    def _join(self, place: _Place, queue: _Queue) -> None:
        self._leave(place)
        place.queue = queue
        queue.num_engines += 1
        queue.num_loads += 1
        place.load_number = queue.num_loads

    @staticmethod
    def _leave(place: _Place) -> None:
        if place.queue is not None:
            place.queue.num_engines -= 1
            place.queue = None

    def _retire(self, place: _Place, why: str) -> None:
        if place.retired is None:
            place.retired = why
            self._num_retired += 1

    def _ask_all(self) -> None:
        self._num_done_since_all_asked = 0
        self._to_ask.update(range(len(self._places)))

    def _give(self, place: _Place, unit: Unit) -> Unit:
        place.in_flight.append(unit)
        self._num_in_flight += 1
        return unit

    def _take_back(self, place: _Place, unit: Unit) -> None:
        if unit in place.in_flight:
            place.in_flight.remove(unit)
            self._num_in_flight -= 1
        if not place.in_flight:
            place.serving_suspect = False

    def _suspect(self, unit: Unit, why: str, alone: bool) -> None:
        queue = self._queues[unit.checkpoint_id]
        if alone:
            self._attempts[unit] = self._attempts.get(unit, 0) + 1
        attempts = self._attempts.get(unit, 0)
        if attempts < self._max_attempts:
            self._add(queue, unit, suspect=True)
        elif unit.num_prompts == 1:
            self._poisonous.append(Record(unit, f"{why}; the prompt was alone in the engine, {attempts} times"))
        else:
            for part in unit.split(SPLIT_PARTS):
                # the parts come from a unit that killed alone: one more death is enough to split further
                self._attempts[part] = self._max_attempts - 1 if part.num_prompts > 1 else 0
                self._add(queue, part, suspect=True)
