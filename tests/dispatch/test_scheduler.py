"""The scheduler, without Ray: a small world in which engines work, die and start again."""

from __future__ import annotations

import random

import pytest

from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.scheduler import Load, Record, Run, Scheduler


def units(count: int, checkpoint: str = "a", size: int = 64) -> list[Unit]:
    return [Unit(checkpoint, f"digest-{checkpoint}", "direct", 0, size * n, size * (n + 1)) for n in range(count)]


class World:
    """Engines that finish what they are given; a unit with a poisonous prompt kills its engine."""

    def __init__(self, scheduler: Scheduler, engines: int, poison: set[int] = frozenset(), chance: float = 0.0, seed: int = 0) -> None:
        self.scheduler = scheduler
        self.engines = engines
        self.poison = poison
        self.done: list[tuple[str, int]] = []
        self.errors: list[tuple[str, int, str]] = []
        self.loads: list[tuple[int, str]] = []
        self.deaths = 0
        self._random = random.Random(seed)
        self._chance = chance

    def run(self, steps: int = 100_000) -> None:
        for _ in range(steps):
            if self.scheduler.finished:
                return
            engine = self._random.randrange(self.engines)
            while (action := self.scheduler.next(engine)) is not None:
                if isinstance(action, Load):
                    self.loads.append((engine, action.checkpoint_id))
                    self.scheduler.started(action.checkpoint_id)
                elif isinstance(action, Record):
                    self.errors += [(action.unit.checkpoint_id, n, action.error) for n in range(action.unit.start, action.unit.stop)]
                    self.scheduler.done(engine, action.unit)
            self._work(engine)
        raise AssertionError("the world does not come to an end")

    def _work(self, engine: int) -> None:
        in_flight = self.scheduler.in_flight(engine)
        if not in_flight:
            return
        unit = in_flight[0]
        if self.poison & set(range(unit.start, unit.stop)) or self._random.random() < self._chance:
            self.deaths += 1
            self.scheduler.lost(engine, "killed")
            return
        self.done += [(unit.checkpoint_id, n) for n in range(unit.start, unit.stop)]
        self.scheduler.done(engine, unit)


def test_two_units_are_in_flight_so_that_an_engine_never_drains() -> None:
    scheduler = Scheduler(units(5))
    assert scheduler.next(0) == Load("a")
    assert scheduler.next(0) == Run(units(5)[0])
    assert scheduler.next(0) == Run(units(5)[1])
    assert scheduler.next(0) is None
    scheduler.done(0, units(5)[0])
    assert scheduler.next(0) == Run(units(5)[2])


def test_every_unit_is_done_exactly_once() -> None:
    world = World(Scheduler(units(20) + units(7, "b"), num_engines=3), 3)
    world.run()
    assert sorted(world.done) == sorted([("a", n) for n in range(20 * 64)] + [("b", n) for n in range(7 * 64)])


def test_with_as_many_engines_as_checkpoints_each_keeps_its_own() -> None:
    scheduler = Scheduler([unit for name in "abcd" for unit in units(3, name)], num_engines=4)
    loads = [scheduler.next(engine) for engine in range(4)]
    assert loads == [Load("a"), Load("b"), Load("c"), Load("d")]


def test_few_checkpoints_are_shared_by_many_engines() -> None:
    scheduler = Scheduler(units(8, "a") + units(4, "b"), num_engines=4)
    loads = [scheduler.next(engine) for engine in range(4)]
    assert [load.checkpoint_id for load in loads if isinstance(load, Load)] == ["a", "b", "a", "b"]


def test_a_poisonous_prompt_is_found_and_recorded_and_all_others_are_answered() -> None:
    world = World(Scheduler(units(4, size=256), num_engines=2), 2, poison={300})
    world.run()
    assert [(name, number) for name, number, _ in world.errors] == [("a", 300)]
    assert "alone in the engine" in world.errors[0][2]
    assert sorted(number for _, number in world.done) == [n for n in range(4 * 256) if n != 300]
    assert world.deaths <= 8


def test_two_poisonous_prompts_in_one_unit_are_both_found() -> None:
    world = World(Scheduler(units(2, size=256)), 1, poison={3, 250})
    world.run()
    assert {number for _, number, _ in world.errors} == {3, 250}
    assert len(world.done) == 2 * 256 - 2


@pytest.mark.parametrize("seed", range(20))
def test_random_deaths_lose_nothing_and_blame_nobody_for_long(seed: int) -> None:
    scheduler = Scheduler(units(30), num_engines=3, max_restarts=100)
    world = World(scheduler, 3, chance=0.15, seed=seed)
    world.run()
    answered = sorted(number for _, number in world.done) + sorted(number for _, number, _ in world.errors)
    assert sorted(answered) == list(range(30 * 64))


def test_a_place_that_only_dies_is_given_up_and_the_run_ends() -> None:
    scheduler = Scheduler(units(50), max_restarts=3)
    world = World(scheduler, 1, chance=1.0)
    world.run()
    assert scheduler.retired == {0: "killed"}
    assert world.deaths == 4
    assert scheduler.num_pending > 0


def test_a_suspect_runs_alone() -> None:
    scheduler = Scheduler(units(2))
    while scheduler.next(0) is not None:
        pass
    scheduler.lost(0, "killed")
    assert scheduler.next(0) == Load("a")
    assert isinstance(scheduler.next(0), Run)
    assert scheduler.next(0) is None
    assert len(scheduler.in_flight(0)) == 1


def test_units_of_a_cluster_that_is_gone_are_as_if_they_had_not_been_given() -> None:
    scheduler = Scheduler(units(3), num_engines=2)
    for engine in (0, 1):
        assert scheduler.next(engine) == Load("a")
    assert isinstance(scheduler.next(0), Run)
    scheduler.park(1)
    for engine in (0, 1):
        scheduler.withdraw(engine)
    assert scheduler.num_pending == 3
    assert scheduler.next(1) == Load("a"), "its place has room again"
    # a suspect would run alone
    assert [type(scheduler.next(1)) for _ in range(2)] == [Run, Run]
    World(scheduler, 2).run()
    assert scheduler.retired == {}


def test_a_checkpoint_that_does_not_start_fails_alone() -> None:
    scheduler = Scheduler(units(2, "broken") + units(2, "good"))
    assert scheduler.next(0) == Load("broken")
    assert not scheduler.start_failed(0, "broken", "no weights", allowed=1)
    assert scheduler.next(0) == Load("broken")
    assert scheduler.start_failed(0, "broken", "no weights", allowed=1)
    World(scheduler, 1).run()
    assert scheduler.failed_checkpoints == {"broken": "no weights"}


def test_after_stop_units_in_flight_may_end_and_no_more_are_given() -> None:
    scheduler = Scheduler(units(5))
    while scheduler.next(0) is not None:
        pass
    scheduler.stop()
    assert not scheduler.finished
    for unit in scheduler.in_flight(0):
        scheduler.done(0, unit)
    assert scheduler.next(0) is None
    assert scheduler.finished
    assert scheduler.num_pending == 3


def test_a_place_without_room_leaves_its_checkpoint_to_others_and_comes_back() -> None:
    scheduler = Scheduler(units(2) + units(2, "b"), num_engines=2)
    assert [scheduler.next(0), scheduler.next(1)] == [Load("a"), Load("b")]
    scheduler.park(1)
    scheduler.started("a")
    for unit in units(2):
        assert scheduler.next(0) == Run(unit)
    assert scheduler.next(1) is None
    for unit in units(2):
        scheduler.done(0, unit)
    assert scheduler.next(0) == Load("b")
    scheduler.unpark(1)
    assert scheduler.to_ask == [0, 1]
    assert scheduler.next(1) == Load("b")
    assert scheduler.failed_checkpoints == {}


def test_a_run_ends_when_all_places_are_given_up_for_want_of_room() -> None:
    scheduler = Scheduler(units(1), num_engines=2)
    for engine in range(2):
        assert scheduler.next(engine) == Load("a")
        scheduler.park(engine)
    assert not scheduler.finished
    for engine in range(2):
        scheduler.give_up(engine, "no room")
    assert scheduler.finished
    assert scheduler.retired == {0: "no room", 1: "no room"}
    assert scheduler.failed_checkpoints == {}


def test_the_whole_pool_is_started_at_once_also_where_earlier_runs_let_expect_that_it_does_not_pay() -> None:
    costs = Costs()
    costs.prompts_took("a", "direct", 1000, 1.0)
    costs.load_took("a", 1000.0, swapped=False)
    scheduler = Scheduler(units(4), num_engines=4, costs=costs)
    assert [scheduler.next(engine) for engine in range(4)] == [Load("a")] * 4
