"""The plan: every unit of a run, and what of it is still to do. pending = plan − completed, a pure function."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.tables.prompts_file import PromptIndex
from wdct_dist.tables.shards import DIGEST_LENGTH, ShardKey

Span = tuple[int, int]
"""Prompts from start to stop (exclusive), by their place in prompts.arrow."""


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A slice of prompts of one variant, for one checkpoint, in one trial: what is given to an engine."""

    checkpoint_id: str
    digest: str
    variant: str
    trial: int
    start: int
    stop: int

    @property
    def num_prompts(self) -> int:
        return self.stop - self.start

    @property
    def shard_name(self) -> str:
        return ShardKey(self.digest, self.trial, self.start, self.stop).name(self.checkpoint_id)

    def split(self, parts: int) -> list[Unit]:
        """The unit in `parts` pieces of nearly the same size (fewer where it has fewer prompts)."""
        parts = min(parts, self.num_prompts)
        bounds = [self.start + self.num_prompts * part // parts for part in range(parts + 1)]
        return [replace(self, start=start, stop=stop) for start, stop in itertools.pairwise(bounds)]

    def cut(self, num_prompts: int) -> tuple[Unit, Unit]:
        """The unit's first `num_prompts` (fewer than it has), and the rest."""
        middle = self.start + num_prompts
        return replace(self, stop=middle), replace(self, start=middle)


def pending_units(
    checkpoints: Sequence[Checkpoint], index: PromptIndex, trials: int, shard_size: int, completed: Iterable[ShardKey]
) -> list[Unit]:
    """The units of the plan that no completed shard covers, in the order checkpoint, trial, variant, place."""
    done: dict[tuple[str, int], list[Span]] = {}
    for key in completed:
        done.setdefault((key.checkpoint_digest, key.trial), []).append((key.start, key.stop))
    for spans in done.values():
        spans.sort()
    return [
        Unit(checkpoint.checkpoint_id, checkpoint.digest, variant.variant, trial, start, stop)
        for checkpoint in checkpoints
        for trial in range(trials)
        for variant in index.variants
        for start, stop in _slices(
            subtract((variant.start, variant.stop), done.get((checkpoint.digest[:DIGEST_LENGTH], trial), [])), shard_size
        )
    ]


def fewest_units(num_checkpoints: int, num_items: int, num_variants: int, trials: int, shard_size: int) -> int:
    """What a plan has at least, before there are prompts: every variant asks both sides of an item (where it asks the item at all)."""
    return num_checkpoints * trials * num_variants * math.ceil(2 * num_items / shard_size)


def subtract(span: Span, covered: Sequence[Span]) -> Iterator[Span]:
    """The parts of `span` that none of `covered` (sorted) touches."""
    start, stop = span
    for low, high in covered:
        if high <= start:
            continue
        if low >= stop:
            break
        if low > start:
            yield start, low
        start = max(start, high)
    if start < stop:
        yield start, stop


def _slices(spans: Iterable[Span], size: int) -> Iterator[Span]:
    for start, stop in spans:
        for low in range(start, stop, size):
            yield low, min(low + size, stop)
