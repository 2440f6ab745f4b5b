"""Which engine does which unit next. Pure: no clock, no Ray, no files; seconds come in with what is reported.

`choice` has the policy: which checkpoint an engine takes next, and how much of it at once. `suspects` has what becomes of the units that
were in flight when their engine died. This keeps the books.

The whole pool is started at once. A place that the cluster has no room for, as after the loss of a node, is parked: the others do its work,
and it is nobody's fault.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from wdct_dist.dispatch.choice import next_queue, tail_size
from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.queues import Place, Queue
from wdct_dist.dispatch.suspects import Suspects


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
        self._queues: dict[str, Queue] = {}
        self._waiting: dict[str, Queue] = {}
        """The queues that have units to give."""
        self._places: list[Place] = []
        self._to_ask: set[int] = set()
        self._num_in_flight = 0
        self._num_retired = 0
        self._num_parked = 0
        self._num_done_since_all_asked = 0
        self._time_left_s = math.inf
        self.set_places(num_engines)
        self._suspects = Suspects(max_attempts)
        self._units_in_flight = units_in_flight
        self._max_restarts = max_restarts
        self._stopped = False
        for unit in units:
            queue = self._queues.setdefault(unit.checkpoint_id, Queue(unit.checkpoint_id, len(self._queues)))
            self._add(queue, unit, suspect=False)

    def set_places(self, num_engines: int) -> None:
        """Fixes the size of the pool; before the first `next`."""
        self._places = [Place() for _ in range(num_engines)]
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
        was_recorded = self._suspects.forget(unit)
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
            for again in self._suspects.after_death(unit, why, alone=alone):
                self._add(self._queues[unit.checkpoint_id], again, suspect=True)
        place.in_flight.clear()
        place.serving_suspect = False
        place.expected_s = place.taken_s = 0.0
        place.leave()
        place.deaths += 1
        if place.deaths > self._max_restarts:
            self._retire(place, why)
        self._ask_all()

    def withdraw(self, engine: int) -> None:
        """The engine is gone with the whole cluster, which says nothing of its units: they are as if they had not been given."""
        place = self._places[engine]
        if place.parked:
            self.unpark(engine)
        self._num_in_flight -= len(place.in_flight)
        for unit in place.in_flight:
            self._add(self._queues[unit.checkpoint_id], unit, suspect=unit in self._suspects)
        place.in_flight.clear()
        place.serving_suspect = False
        place.expected_s = place.taken_s = 0.0
        place.leave()
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
        place.leave()
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
        place.leave()
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
        return self._stopped or not (self._waiting or self._suspects.poisonous) or self._num_retired == len(self._places)

    @property
    def num_places(self) -> int:
        return len(self._places)

    @property
    def num_pending(self) -> int:
        """Units that still can be done and are not in flight."""
        return sum(queue.num_units for queue in self._waiting.values()) + len(self._suspects.poisonous)

    @property
    def failed_checkpoints(self) -> dict[str, str]:
        """Checkpoints that could not be evaluated, with the reason."""
        return {name: queue.failed for name, queue in self._queues.items() if queue.failed is not None}

    @property
    def retired(self) -> dict[int, str]:
        """Places given up, with the reason of the last death."""
        return {number: place.retired for number, place in enumerate(self._places) if place.retired is not None}

    def _choose(self, place: Place) -> Action | None:
        if place.retired is not None or place.parked:
            return None
        if self._suspects.poisonous and not self._stopped:
            unit, error = self._suspects.poisonous.popleft()
            return Record(self._give(place, unit), error)
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
        # an engine takes an adapter of its group while it answers for others, and so never drains between them
        group = queue.checkpoint_id if place.in_flight and queue is not None and self.costs.shares(queue.checkpoint_id) else None
        if place.in_flight and (group is None or len(place.in_flight) >= self._units_in_flight):
            return None
        wanted = self._wanted(place)
        if wanted is None or (group is not None and not self.costs.shares(wanted.checkpoint_id, group)):
            return None
        place.join(wanted)
        return Load(wanted.checkpoint_id)

    def _wanted(self, place: Place, but: Queue | None = None) -> Queue | None:
        """The checkpoint that the engine takes next, other than `but`."""
        left_s = self._reckon()
        waiting = (queue for queue in self._waiting.values() if queue is not but)
        return next_queue(place, waiting, left_s, self._time_left_s, self.costs)

    def _reckon(self) -> dict[str, float]:
        """Engine time left by checkpoint; renews what all engines together still need."""
        left = {queue.checkpoint_id: queue.left_s(self.costs) for queue in self._waiting.values()}
        self._time_left_s = sum(left.values()) / max(1, len(self._places) - self._num_retired - self._num_parked)
        return left

    def _take_first(self, place: Place, queue: Queue, units: deque[Unit]) -> Unit | None:
        """The first of the queue's units, or a part of it where the tail needs smaller ones; None where the engine has enough."""
        unit = units.popleft()
        # what has killed alone is split to find the prompt at fault, and only then
        is_cut = len(self._places) > 1 and unit not in self._suspects
        size = (
            tail_size(place, queue, unit, self._time_left_s, self.costs, units_in_flight=self._units_in_flight)
            if is_cut
            else unit.num_prompts
        )
        if size < unit.num_prompts:
            part, rest = unit.cut(size) if size > 0 else (None, unit)
            units.appendleft(rest)
            if part is None:
                return None
            unit = part
        queue.take(unit)
        self._note(queue)
        return unit

    def _add(self, queue: Queue, unit: Unit, *, suspect: bool) -> None:
        queue.add(unit, suspect=suspect)
        self._note(queue)

    def _note(self, queue: Queue) -> None:
        """Keeps `_waiting` true after a change of the queue."""
        if queue.num_units > 0:
            self._waiting[queue.checkpoint_id] = queue
        else:
            self._waiting.pop(queue.checkpoint_id, None)

    def _retire(self, place: Place, why: str) -> None:
        if place.retired is None:
            place.retired = why
            self._num_retired += 1

    def _ask_all(self) -> None:
        self._num_done_since_all_asked = 0
        self._to_ask.update(range(len(self._places)))

    def _give(self, place: Place, unit: Unit) -> Unit:
        place.in_flight.append(unit)
        self._num_in_flight += 1
        return unit

    def _take_back(self, place: Place, unit: Unit) -> None:
        if unit in place.in_flight:
            place.in_flight.remove(unit)
            self._num_in_flight -= 1
        if not place.in_flight:
            place.serving_suspect = False
