"""The scheduler run on paper: few loads while there are many checkpoints, no idle tail, and a makespan near what is possible."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.simulation import Estimated, Loss, Schedule, simulate


def measured(sizes: dict[str, float], *, start_s: float = 10.0, swap_s: float = 1.0, same: bool = True) -> Costs:
    """Costs of checkpoints by the seconds that a prompt of theirs takes."""
    costs = Costs({name: Profile("same" if same else name, 10**9, {"direct": 1.0}) for name in sizes}, can_swap=True)
    for name, seconds in sizes.items():
        costs.prompts_took(name, "direct", 1000, 1000 * seconds)
        costs.load_took(name, start_s, swapped=False)
        costs.load_took(name, swap_s, swapped=True)
    return costs


def units(name: str, count: int, size: int = 100) -> list[Unit]:
    return [Unit(name, name, "direct", 0, size * n, size * (n + 1)) for n in range(count)]


def simulated(work: list[Unit], sizes: dict[str, float], engines: int, losses: tuple[Loss, ...] = (), **costs: float | bool) -> Schedule:
    schedule = simulate(
        Scheduler(work, costs=measured(sizes, **costs)),  # type: ignore[arg-type]
        engines,
        Estimated(measured(sizes, **costs)),  # type: ignore[arg-type]
        losses,
    )
    assert schedule.num_prompts == sum(unit.num_prompts for unit in work)
    return schedule


def test_one_engine_takes_the_longest_checkpoint_first_and_swaps_to_the_others() -> None:
    schedule = simulated(units("a", 2) + units("b", 5) + units("c", 3), {"a": 0.1, "b": 0.1, "c": 0.1}, 1)
    assert list(schedule.courses) == ["b", "c", "a"]
    assert (schedule.num_starts, schedule.num_swaps) == (1, 2)
    assert schedule.makespan_s == pytest.approx(10.0 + 1.0 + 1.0 + 100.0)


def test_while_there_are_many_checkpoints_each_is_loaded_once() -> None:
    names = [f"c{n}" for n in range(40)]
    schedule = simulated([unit for name in names for unit in units(name, 10)], dict.fromkeys(names, 0.1), 4)
    assert schedule.num_starts + schedule.num_swaps <= 40 + 4
    assert schedule.makespan_s <= 1.02 * (10.0 + 10 * 1.0 + 40 * 100.0 / 4)


def test_one_checkpoint_is_split_over_all_engines() -> None:
    schedule = simulated(units("a", 50), {"a": 0.1}, 8)
    assert len(schedule.courses["a"].engines) == 8
    assert schedule.makespan_s <= 10.0 + 1.05 * 500.0 / 8


def test_an_engine_does_not_load_what_would_be_done_before_it_is_ready() -> None:
    schedule = simulated(units("long", 30) + units("short", 1), {"long": 0.1, "short": 0.1}, 2, start_s=400.0, swap_s=400.0)
    assert schedule.courses["long"].engines != schedule.courses["short"].engines
    assert schedule.num_starts + schedule.num_swaps == 2


def test_the_last_unit_is_not_a_long_one() -> None:
    # 9 units of 100 s on 4 engines: as they are they take 300 s, evenly shared 225 s
    schedule = simulated(units("a", 9), {"a": 1.0}, 4)
    assert schedule.makespan_s <= 10.0 + 225.0 + 5.0
    assert schedule.num_units > 9


def test_of_the_checkpoints_that_nobody_has_an_engine_takes_one_that_it_can_swap_to() -> None:
    costs = Costs({name: Profile(name[0], 10**9) for name in ("x1", "x2", "y1", "y2")}, can_swap=True)
    work = [unit for name in ("x1", "y1", "y2", "x2") for unit in units(name, 4)]
    schedule = simulate(Scheduler(work, costs=costs), 2, Estimated(costs))
    assert (schedule.num_starts, schedule.num_swaps) == (2, 2)


def test_an_engine_that_is_lost_costs_its_units_in_flight_alone() -> None:
    losses = (Loss(100.0, 0, True), Loss(150.0, 1, False))
    schedule = simulated(units("a", 100), {"a": 0.1}, 4, losses)
    # 1000 s of work: 3 engines but for the first 100 s of a fourth; two dead engines' units again, one more start
    assert schedule.makespan_s <= (1000.0 + 4 * 10.0 + 10.0 + 4 * 10.0 + 100.0) / 3


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/simulate.py, which is no package."""
    path = Path(__file__).parents[2] / "benchmarks" / "simulate.py"
    spec = importlib.util.spec_from_file_location("simulate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["simulate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(2))
def test_mixed_checkpoints_on_many_engines_end_within_a_twentieth_of_the_lower_bound(seed: int, benchmark: ModuleType) -> None:
    figures = benchmark.run(128, 40, 4.0, 0.0, seed, 2048)
    assert figures["to_work_bound"] <= 1.05


@pytest.mark.parametrize("seed", range(2))
def test_with_a_twentieth_of_the_engines_lost_it_ends_within_an_eighth(seed: int, benchmark: ModuleType) -> None:
    figures = benchmark.run(128, 40, 4.0, 0.05, seed, 2048)
    assert figures["lost_for_good"] == 7
    assert figures["to_work_bound"] <= 1.125


def test_the_scheduler_takes_well_under_a_millisecond_a_unit(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # time of this thread on a core: while others have the core the watch stands still
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=time.thread_time))
    assert benchmark.run(128, 40, 0.5, 0.05, 0, 512)["driver_ms_a_unit"] < 1.0
