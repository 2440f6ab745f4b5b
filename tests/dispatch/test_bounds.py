"""No endless loops: whatever dies, hangs or does not start, and when, the scheduler comes to an end within a bounded number of actions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.scheduler import Load, Record, Scheduler

CRASHES = 4
"""As in the driver: a process that dies while it loads is tried this often again, an error that it raises once."""


MOST_PARKED = 10


@dataclass
class Chances:
    """How likely things go wrong, each time."""

    dies: float
    crashes_at_start: float
    raises_at_start: float
    poison: set[tuple[str, int]]
    """Prompts that always kill their engine."""
    broken: set[str]
    """Checkpoints that never start."""
    no_room: float
    """That the cluster has no room for an engine; at most `MOST_PARKED` times, as each costs the driver a wait."""


@dataclass
class World:
    """Engines that fail by chance, asked in a random order as a driver may."""

    scheduler: Scheduler
    num_engines: int
    chances: Chances
    random: random.Random
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    recorded: Counter[tuple[str, int]] = field(default_factory=Counter)
    to_record: set[Unit] = field(default_factory=set)
    loading: dict[int, str] = field(default_factory=dict)
    parked: set[int] = field(default_factory=set)
    actions: Counter[str] = field(default_factory=Counter)

    def run(self, most_steps: int) -> None:
        for _ in range(most_steps):
            if self.scheduler.finished:
                return
            for engine in self.scheduler.to_ask:
                self.ask(engine)
            busy = sorted({*self.loading, *self.parked, *(one for one in range(self.num_engines) if self.scheduler.in_flight(one))})
            if not busy:
                assert self.scheduler.finished, "nobody is busy, and it is not at its end"
                return
            self.happen(self.random.choice(busy))
        raise AssertionError(f"not at an end after {most_steps} steps: {self.actions}")

    def ask(self, engine: int) -> None:
        while engine not in self.loading and (action := self.scheduler.next(engine)) is not None:
            self.actions[type(action).__name__] += 1
            if isinstance(action, Load):
                self.loading[engine] = action.checkpoint_id
            elif isinstance(action, Record):
                self.to_record.add(action.unit)

    def happen(self, engine: int) -> None:
        """What the engine does comes to an end, well or not."""
        if engine in self.parked:
            self.parked.remove(engine)
            if self.random.random() < self.chances.dies:
                self.scheduler.give_up(engine, "no room")
            else:
                self.scheduler.unpark(engine)
            return
        if engine in self.loading and self.actions["park"] < MOST_PARKED and self.random.random() < self.chances.no_room:
            self.actions["park"] += 1
            self.loading.pop(engine)
            self.parked.add(engine)
            self.scheduler.park(engine)
            return
        if engine in self.loading:
            checkpoint = self.loading.pop(engine)
            if checkpoint in self.chances.broken or self.random.random() < self.chances.raises_at_start:
                self.scheduler.start_failed(engine, checkpoint, "raised", allowed=1)
            elif self.random.random() < self.chances.crashes_at_start:
                self.scheduler.start_failed(engine, checkpoint, "crashed", allowed=CRASHES)
            else:
                self.scheduler.started(checkpoint, self.random.random())
            return
        unit = self.scheduler.in_flight(engine)[0]
        prompts = {(unit.checkpoint_id, place) for place in range(unit.start, unit.stop)}
        record = unit in self.to_record
        if self.random.random() < self.chances.dies or (not record and prompts & self.chances.poison):
            self.actions["death"] += 1
            self.scheduler.lost(engine, "died")
            return
        (self.recorded if record else self.answered).update(prompts)
        self.scheduler.done(engine, unit, unit.num_prompts * self.random.uniform(0.1, 2.0))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, list[Unit], int]:
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    shard = draw(st.integers(1, 12))
    units = [
        Unit(f"c{n}", f"c{n}", "direct", 0, low, min(low + shard, size)) for n, size in enumerate(sizes) for low in range(0, size, shard)
    ]
    prompts = [(f"c{n}", place) for n, size in enumerate(sizes) for place in range(size)]
    chance = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
    chances = Chances(
        draw(chance),
        draw(chance),
        draw(chance),
        draw(st.sets(st.sampled_from(prompts), max_size=4)),
        draw(st.sets(st.sampled_from([f"c{n}" for n in range(len(sizes))]), max_size=2)),
        draw(chance),
    )
    num_engines, max_restarts = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    costs = Costs({f"c{n}": Profile(draw(st.sampled_from("xy")), 10**9) for n in range(len(sizes))}, can_swap=True)
    scheduler = Scheduler(
        units,
        num_engines=num_engines,
        units_in_flight=draw(st.integers(1, 3)),
        max_attempts=draw(st.integers(1, 3)),
        max_restarts=max_restarts,
        costs=costs,
    )
    return World(scheduler, num_engines, chances, random.Random(draw(st.integers(0, 2**32)))), units, max_restarts


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_every_run_ends_and_every_prompt_is_done_recorded_or_of_a_failed_checkpoint(drawn: tuple[World, list[Unit], int]) -> None:
    world, units, max_restarts = drawn
    num_prompts = sum(unit.num_prompts for unit in units)
    # each unit that is done has a prompt of its own, and between two of them a place may die max_restarts times and once more
    most_deaths = (max_restarts + 1) * (world.num_engines + num_prompts)
    # a load ends in a failure, of which there are as many in a row as crashes are allowed, or in a unit that is done or dies, or finds that
    # the others have taken all meanwhile
    most_loads = (CRASHES + 2) * world.num_engines * (most_deaths + num_prompts + len({unit.checkpoint_id for unit in units}))
    most_loads += MOST_PARKED
    world.run(most_deaths + num_prompts + most_loads + 2 * MOST_PARKED)
    assert world.actions["death"] <= most_deaths
    assert world.actions["Load"] <= most_loads
    scheduler = world.scheduler
    for unit in units:
        for place in range(unit.start, unit.stop):
            prompt = (unit.checkpoint_id, place)
            assert world.answered[prompt] + world.recorded[prompt] <= 1, "written twice"
            if prompt not in world.answered and prompt not in world.recorded:
                given_up = len(scheduler.retired) == world.num_engines
                assert unit.checkpoint_id in scheduler.failed_checkpoints or given_up, f"{prompt} was lost"
    assert not {prompt for prompt in world.recorded if world.chances.dies == 0.0} - world.chances.poison, "recorded without being at fault"
    assert not set(world.answered) & world.chances.poison
