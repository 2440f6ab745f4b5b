"""Which checkpoint an engine takes next, and how much of it at once: single choices. Whole runs are in test_simulation.py."""

from __future__ import annotations

import math

import pytest

from wdct_dist.dispatch.choice import SMALLEST_UNIT_PROMPTS, next_queue, tail_size
from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.queues import Place, Queue


def unit(checkpoint: str, num_prompts: int, start: int = 0) -> Unit:
    return Unit(checkpoint, f"digest-{checkpoint}", "direct", 0, start, start + num_prompts)


def queue(checkpoint: str, num_prompts: int, *, num_engines: int = 0, order: int = 0) -> Queue:
    made = Queue(checkpoint, order, num_engines=num_engines)
    made.add(unit(checkpoint, num_prompts), suspect=False)
    return made


@pytest.fixture
def costs() -> Costs:
    """A prompt takes a second, a start a minute and a swap two seconds; a and b are of one architecture."""
    made = Costs({"a": Profile("one"), "b": Profile("one"), "c": Profile("another")}, can_swap=True)
    for name in "abc":
        made.prompts_took(name, "direct", 100, 100.0)
        made.load_took(name, 60.0, swapped=False)
        made.load_took(name, 2.0, swapped=True)
    return made


def chosen(place: Place, queues: list[Queue], costs: Costs, time_left_s: float = math.inf) -> str | None:
    taken = next_queue(place, queues, {one.checkpoint_id: one.left_s(costs) for one in queues}, time_left_s, costs)
    return None if taken is None else taken.checkpoint_id


def test_a_checkpoint_that_can_be_swapped_to_comes_before_a_longer_one_that_needs_a_start(costs: Costs) -> None:
    place = Place(queue("a", 0), load_number=1)
    assert chosen(place, [queue("b", 100), queue("c", 500)], costs) == "b"


def test_a_checkpoint_that_needs_more_than_a_fair_share_of_the_time_left_comes_first(costs: Costs) -> None:
    place = Place(queue("a", 0), load_number=1)
    assert chosen(place, [queue("b", 100), queue("c", 500)], costs, time_left_s=300.0) == "c"


def test_a_checkpoint_without_an_engine_comes_before_one_that_has_one(costs: Costs) -> None:
    place = Place(queue("a", 0), load_number=1)
    assert chosen(place, [queue("b", 1000, num_engines=1), queue("c", 10)], costs) == "c"


@pytest.mark.parametrize(("num_prompts", "taken"), [(61, "c"), (59, None)])
def test_an_engine_joins_others_only_where_loading_takes_less_time_than_they_still_need(
    num_prompts: int, taken: str | None, costs: Costs
) -> None:
    place = Place(queue("a", 0), load_number=1)
    assert chosen(place, [queue("c", num_prompts, num_engines=1)], costs) == taken


def test_a_place_that_has_never_had_an_engine_joins_in_any_case(costs: Costs) -> None:
    assert chosen(Place(), [queue("c", 1, num_engines=1)], costs) == "c"


def test_units_become_smaller_towards_the_end_and_a_slow_engine_has_less(costs: Costs) -> None:
    shared = queue("a", 400, num_engines=2)
    whole = unit("a", 256)
    fast, slow = Place(shared), Place(shared, expected_s=10.0, taken_s=20.0)
    # of 200 s for each of the two engines half may be in flight, in two units
    assert tail_size(fast, shared, whole, 200.0, costs, units_in_flight=2) == 50
    assert tail_size(slow, shared, whole, 200.0, costs, units_in_flight=2) == 25


def test_an_engine_with_enough_in_flight_gets_nothing_and_an_idle_one_always_something(costs: Costs) -> None:
    shared = queue("a", 8, num_engines=2)
    assert tail_size(Place(shared, in_flight=[unit("a", 8)]), shared, unit("a", 8), 4.0, costs, units_in_flight=2) == 0
    assert tail_size(Place(shared), shared, unit("a", 8), 4.0, costs, units_in_flight=2) == SMALLEST_UNIT_PROMPTS


def test_a_checkpoint_that_nobody_would_join_for_the_little_that_is_left_is_not_cut(costs: Costs) -> None:
    own = queue("a", 50, num_engines=1)
    assert tail_size(Place(own), own, unit("a", 50), 50.0, costs, units_in_flight=2) == 50


def test_nothing_is_cut_before_anything_was_measured() -> None:
    shared = queue("a", 400, num_engines=2)
    assert tail_size(Place(shared), shared, unit("a", 256), 1.0, Costs(), units_in_flight=2) == 256
