"""Which checkpoint an engine takes next, and how much of it at once. Pure: what is waiting comes in, a choice goes out.

An engine stays with its checkpoint while that has units. Then it takes a checkpoint that no engine has: one that would need more than
a fair share of the time that is left comes first, then those that it can swap to, the longest before the others. When every checkpoint
has an engine it joins the one that would be done last, if loading it takes less time than the engines there still need. Where several
engines share what is left of a checkpoint, and none is without an engine, units become smaller towards the end, so that all end together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.queues import Place, Queue

IN_FLIGHT_PART = 0.5
"""Towards the end an engine has at most this part of what is left for each engine in flight."""

SMALLEST_UNIT_S = 1.0
"""Units are not cut below this: writing a shard and telling of it take their time too."""

SMALLEST_UNIT_PROMPTS = 8


def next_queue(place: Place, waiting: Iterable[Queue], left_s: Mapping[str, float], time_left_s: float, costs: Costs) -> Queue | None:
    """The queue that the place's engine takes next, or None where it had better take none.

    `left_s`: engine time that is left, by checkpoint id; `time_left_s`: what all engines together still need.
    """
    present = place.queue.checkpoint_id if place.queue is not None else None
    waiting = list(waiting)
    alone = [queue for queue in waiting if queue.num_engines == 0]
    if alone:

        def urgency(queue: Queue) -> tuple[bool, bool, float, int]:
            seconds = left_s[queue.checkpoint_id]
            late = seconds > time_left_s
            return not late, not late and not costs.swaps(queue.checkpoint_id, present), -seconds, queue.order

        return min(alone, key=urgency)
    shared = [
        queue
        for queue in waiting
        # the whole pool is started at once, whatever earlier runs let expect
        if place.load_number == 0
        or not costs.measured
        or left_s[queue.checkpoint_id] / queue.num_engines > costs.load_s(queue.checkpoint_id, present)
    ]
    return min(
        shared,
        key=lambda queue: (-left_s[queue.checkpoint_id] / queue.num_engines, queue.num_engines, queue.order),
        default=None,
    )


def tail_size(place: Place, queue: Queue, unit: Unit, time_left_s: float, costs: Costs, *, units_in_flight: int) -> int:
    """Prompts of the unit that are given at once, so that no engine, a slow one neither, has much in flight when the last unit is given.

    For a pool of several places. 0 where the engine has enough in flight; more than the unit has where it is not to be cut.
    """
    if not costs.measured:
        return unit.num_prompts
    left_s = queue.left_s(costs) / queue.num_engines
    load_s = costs.load_s(queue.checkpoint_id)
    if queue.num_engines == 1 and left_s <= load_s:
        return unit.num_prompts  # nobody joins for so little
    left_s = min(left_s, max(load_s, time_left_s))
    room_s = left_s * IN_FLIGHT_PART / place.pace - sum(map(costs.unit_s, place.in_flight))
    if place.in_flight and room_s <= 0:
        return 0
    seconds = max(SMALLEST_UNIT_S, room_s / (units_in_flight - len(place.in_flight)))
    return max(SMALLEST_UNIT_PROMPTS, math.ceil(seconds / costs.prompt_s(unit.checkpoint_id, unit.variant)))
