"""The scheduler with 1,024 engines and 200 checkpoints, on paper: makespan against a lower bound, and driver time a unit.

    .venv/bin/python benchmarks/simulate.py [--engines 1024] [--checkpoints 200] [--hours 4] [--lost 0.05] [--seeds 5]

A discrete-event simulation that runs the very Scheduler of `wdct evaluate`. Checkpoints have 0.1 to 70 billion parameters and a part of the
prompts still to do (a run that goes on), in a variant that is prefilled only and one that reasons; `--hours` sets how many prompts there
are, so that all engines together have that long to do. Nothing is measured beforehand: the scheduler knows sizes and tokens and learns the
rest. What is true differs from what it expects: evaluation by a factor a checkpoint (log-normal, sigma 0.3), loading by one each time
(0.2), each unit by noise (0.05); 3 % of the engines run at half speed. With `--lost`, that part of the engines dies for good at moments
spread evenly over the lower bound, and as many again die and are replaced.

Lower bounds, both from what is true, neither reachable in general:
  work   the work divided by the speed of all engines. Loading counts as nothing; lost engines count as if they had stayed.
  start  the same, but each engine first takes the time of the cheapest start of all, and one that is lost for good works until then. A
         checkpoint's longest chain (its start and its slowest prompt: everything else can be split) is a bound too; the larger one counts.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.scheduler import Action, Scheduler
from wdct_dist.dispatch.simulation import Loss, simulate

SIZES_B = (0.1, 0.4, 1.0, 3.0, 7.0, 13.0, 32.0, 70.0)
HOW_MANY = (15, 15, 30, 35, 50, 25, 20, 10)
"""Of 200 checkpoints, by size."""
FAMILIES = 2
"""Architectures a size."""
TOKENS = {"direct": 121.0, "cot": 121.0 + 2.5 * 256}
SHARE = {"direct": 0.8, "cot": 0.2}
FLOPS = 3e14
FLOOR_S_PER_TOKEN = 3e-6
FIGURES = {
    "to_work_bound": "time / (work / speed of all engines)",
    "to_start_bound": "time / the bound that counts the first start",
    "driver_ms_a_unit": "the scheduler's time a unit, in ms",
}
START_S, READ_BYTES_PER_S, COPY_BYTES_PER_S = 45.0, 1.5e9, 6e9


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of the simulated world, as it truly is."""

    checkpoint_id: str
    profile: Profile
    prompt_s: dict[str, float]
    units: list[Unit]

    @property
    def work_s(self) -> float:
        return sum(unit.num_prompts * self.prompt_s[unit.variant] for unit in self.units)

    @property
    def start_s(self) -> float:
        return START_S + self.profile.size_bytes / READ_BYTES_PER_S


class Truth:
    """How long things really take."""

    def __init__(self, checkpoints: Sequence[Checkpoint], speeds: Sequence[float], seed: int) -> None:
        self._checkpoints = {one.checkpoint_id: one for one in checkpoints}
        self._speeds = speeds
        self._random = random.Random(seed)

    def load_s(self, engine: int, checkpoint_id: str, after: str | None) -> tuple[float, bool]:
        one = self._checkpoints[checkpoint_id]
        swapped = after is not None and self._checkpoints[after].profile.signature == one.profile.signature
        seconds = 1.0 + one.profile.size_bytes / COPY_BYTES_PER_S if swapped else one.start_s
        return seconds * self._random.lognormvariate(0.0, 0.2), swapped

    def unit_s(self, engine: int, unit: Unit) -> float:
        seconds = unit.num_prompts * self._checkpoints[unit.checkpoint_id].prompt_s[unit.variant]
        return seconds * self._random.lognormvariate(0.0, 0.05) / self._speeds[engine]


class Timed(Scheduler):
    """The same scheduler, with a watch on every call that the driver makes a unit."""

    spent_s = 0.0
    longest_s = 0.0

    def next(self, engine: int) -> Action | None:
        began = time.perf_counter()
        action = super().next(engine)
        self._spent(time.perf_counter() - began)
        return action

    def done(self, engine: int, unit: Unit, seconds: float | None = None) -> None:
        began = time.perf_counter()
        super().done(engine, unit, seconds)
        self._spent(time.perf_counter() - began)

    @property
    def to_ask(self) -> list[int]:
        began = time.perf_counter()
        places = super().to_ask
        self._spent(time.perf_counter() - began)
        return places

    def _spent(self, seconds: float) -> None:
        self.spent_s += seconds
        self.longest_s = max(self.longest_s, seconds)


def draw_checkpoints(count: int, target_s: float, shard_size: int, generator: random.Random) -> list[Checkpoint]:
    """`count` checkpoints whose work is `target_s` seconds of one engine, all with the same prompts, some of them done already."""
    drawn = []
    for number in range(count):
        billions = generator.choices(SIZES_B, HOW_MANY)[0]
        profile = Profile(f"{billions}B-{generator.randrange(FAMILIES)}", round(billions * 2e9), TOKENS)
        factor = generator.lognormvariate(0.0, 0.3)
        prompt_s = {name: factor * max(tokens * FLOOR_S_PER_TOKEN, tokens * 2e9 * billions / FLOPS) for name, tokens in TOKENS.items()}
        drawn.append((f"c{number}", profile, prompt_s, generator.uniform(0.3, 1.0)))
    a_prompt = sum(part * sum(SHARE[name] * seconds for name, seconds in prompt_s.items()) for _, _, prompt_s, part in drawn)
    prompts = target_s / a_prompt
    return [
        Checkpoint(name, profile, prompt_s, make_units(name, {one: round(prompts * part * SHARE[one]) for one in TOKENS}, shard_size))
        for name, profile, prompt_s, part in drawn
    ]


def make_units(name: str, num_prompts: dict[str, int], shard_size: int) -> list[Unit]:
    return [
        Unit(name, name, variant, 0, start, min(start + shard_size, count))
        for variant, count in num_prompts.items()
        for start in range(0, count, shard_size)
    ]


def lower_bound(checkpoints: Sequence[Checkpoint], speeds: Sequence[float], start_s: float, losses: Sequence[Loss]) -> float:
    """The least time in which engines that first start for `start_s` can do the work; see the bounds above."""
    work = sum(one.work_s for one in checkpoints)
    gone = {loss.engine: loss.time_s for loss in losses if loss.for_good}
    low, high = 0.0, start_s + 2 * work / min(speeds)
    for _ in range(100):
        middle = (low + high) / 2
        can = sum(speed * max(0.0, min(middle, gone.get(engine, middle)) - start_s) for engine, speed in enumerate(speeds))
        low, high = (low, middle) if can >= work else (middle, high)
    return high


def run(engines: int, count: int, hours: float, lost: float, seed: int, shard_size: int) -> dict[str, float | int]:
    """One simulated run; its figures."""
    generator = random.Random(seed)
    speeds = [0.5 if generator.random() < 0.03 else generator.gauss(1.0, 0.02) for _ in range(engines)]
    checkpoints = draw_checkpoints(count, hours * 3600 * engines, shard_size, generator)
    work_bound = lower_bound(checkpoints, speeds, 0.0, ())
    dying = generator.sample(range(engines), round(2 * lost * engines))
    losses = [Loss(generator.uniform(0.0, work_bound), engine, place % 2 == 0) for place, engine in enumerate(dying)]
    chain = max(one.start_s + max(one.prompt_s.values()) for one in checkpoints)
    start_bound = max(lower_bound(checkpoints, speeds, min(one.start_s for one in checkpoints), losses), chain)
    units = [unit for one in checkpoints for unit in one.units]
    costs = Costs({one.checkpoint_id: one.profile for one in checkpoints}, can_swap=True)
    scheduler = Timed(units, costs=costs)
    schedule = simulate(scheduler, engines, Truth(checkpoints, speeds, seed), losses)
    assert schedule.num_prompts == sum(unit.num_prompts for unit in units), "prompts are missing"
    return {
        "seed": seed,
        "engines": engines,
        "checkpoints": count,
        "lost_for_good": sum(loss.for_good for loss in losses),
        "work_bound_s": round(work_bound, 1),
        "start_bound_s": round(start_bound, 1),
        "makespan_s": round(schedule.makespan_s, 1),
        "to_work_bound": round(schedule.makespan_s / work_bound, 4),
        "to_start_bound": round(schedule.makespan_s / start_bound, 4),
        "starts": schedule.num_starts,
        "swaps": schedule.num_swaps,
        "loading_share": round(schedule.loading_s / (engines * schedule.makespan_s), 4),
        "units_planned": len(units),
        "units_done": schedule.num_units,
        "driver_ms_a_unit": round(1000 * scheduler.spent_s / schedule.num_units, 4),
        "driver_ms_longest": round(1000 * scheduler.longest_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=1024)
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--lost", type=float, default=0.0, help="part of the engines that dies for good")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shard-size", type=int, default=2048)
    from record import arguments, figure, write  # late: other programs and tests import this one from elsewhere

    options = arguments(parser)
    rows = []
    for seed in range(options.seeds):
        rows.append(run(options.engines, options.checkpoints, options.hours, options.lost, seed, options.shard_size))
        print(json.dumps(rows[-1]), flush=True)
    write(
        options,
        "simulation-losses" if options.lost else "simulation",
        [figure(what, [row[name] for row in rows]) for name, what in FIGURES.items()],
        rows,
    )


if __name__ == "__main__":
    main()
