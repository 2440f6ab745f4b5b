"""The units of a checkpoint wait in its queue; the engine in a place of the pool serves one queue at a time.

Two records that the scheduler changes. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit

MEMORY = 0.8
"""What a unit counts for an engine's pace when the next one is done."""


@dataclass(slots=True)
class Queue:
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
class Place:
    """A place in the pool: the engine in it may be replaced, the place stays."""

    queue: Queue | None = None
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

    def join(self, queue: Queue) -> None:
        """Leaves the queue that it has, and counts as one more engine of this one."""
        self.leave()
        self.queue = queue
        queue.num_engines += 1
        queue.num_loads += 1
        self.load_number = queue.num_loads

    def leave(self) -> None:
        if self.queue is not None:
            self.queue.num_engines -= 1
            self.queue = None
