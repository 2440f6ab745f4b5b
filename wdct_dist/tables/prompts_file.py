"""prompts.arrow: every rendered prompt, once; written in a stream, read by range.

A unit names its prompts by their place in this file, so prompts never travel through the driver.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from wdct_dist.errors import StorageError
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables import rows, schema
from wdct_dist.tables.storage import Store

NAME = "prompts.arrow"
BATCH_ROWS = 1024
"""Rows of every record batch but the last, so that row i is in batch i // BATCH_ROWS."""


@dataclass(frozen=True, slots=True)
class VariantRange:
    """Where prompts of one variant stand in prompts.arrow, one behind the other. The variants of a family take turns: several ranges."""

    variant: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PromptIndex:
    """What the plan needs to know of prompts.arrow."""

    num_prompts: int
    variants: tuple[VariantRange, ...]
    digest: str
    """Hash over all prompt ids in order: two files with the same digest hold the same prompts in the same places."""
    num_chars: Mapping[str, int] = field(default_factory=dict)
    """Characters of all messages, by variant."""
    num_reasoned: Mapping[str, int] = field(default_factory=dict)
    """Prompts that have the model reason first, by variant."""

    @property
    def num_by_variant(self) -> dict[str, int]:
        """Prompts by variant, in the order in which the variants first appear."""
        counts: dict[str, int] = {}
        for one in self.variants:
            counts[one.variant] = counts.get(one.variant, 0) + one.stop - one.start
        return counts


class PromptTally:
    """Counts prompts as they pass, and hashes their ids."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._ranges: list[VariantRange] = []
        self._count = 0
        self._chars = Counter[str]()
        self._reasoned = Counter[str]()

    def watch(self, prompts: Iterable[Prompt]) -> Iterator[Prompt]:
        for prompt in prompts:
            self._hash.update(prompt.prompt_id.encode())
            if not self._ranges or self._ranges[-1].variant != prompt.variant:
                self._ranges.append(VariantRange(prompt.variant, self._count, self._count))
            self._count += 1
            self._chars[prompt.variant] += sum(len(message.content) for message in prompt.messages)
            self._reasoned[prompt.variant] += prompt.mode == "reason"
            last = self._ranges[-1]
            self._ranges[-1] = VariantRange(last.variant, last.start, self._count)
            yield prompt

    def index(self) -> PromptIndex:
        return PromptIndex(self._count, tuple(self._ranges), self._hash.hexdigest(), dict(self._chars), dict(self._reasoned))


def write_prompts(store: Store, prompts: Iterable[Prompt]) -> PromptIndex:
    """Writes prompts.arrow from a stream; memory holds one batch."""
    tally = PromptTally()
    with (
        store.writing(NAME) as stream,
        pa.ipc.new_file(stream, schema.PROMPTS, options=schema.IPC_OPTIONS) as writer,
    ):
        for batch in _batches(tally.watch(prompts)):
            writer.write_batch(rows.prompts_batch(batch))
    return tally.index()


def index_of(prompts: Iterable[Prompt]) -> PromptIndex:
    """The index that `write_prompts` would return, without writing."""
    tally = PromptTally()
    for _ in tally.watch(prompts):
        pass
    return tally.index()


class PromptReader:
    """Reads ranges of prompts.arrow; keeps the file open and the last batch decoded."""

    def __init__(self, store: Store) -> None:
        try:
            self._file = pa.ipc.open_file(store.open(NAME))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{store.uri}: {NAME} cannot be read: {error}") from error
        self._batch_number = -1
        self._batch: list[Prompt] = []

    def read(self, start: int, stop: int) -> list[Prompt]:
        """Prompts `start` to `stop` (exclusive)."""
        found: list[Prompt] = []
        while start < stop:
            number, offset = divmod(start, BATCH_ROWS)
            until = min(stop, (number + 1) * BATCH_ROWS)
            found += self._decoded(number)[offset : offset + until - start]
            start = until
        return found

    def _decoded(self, number: int) -> list[Prompt]:
        if number != self._batch_number:
            self._batch = rows.prompts_from(self._file.get_batch(number))
            self._batch_number = number
        return self._batch


def _batches(prompts: Iterable[Prompt]) -> Iterator[list[Prompt]]:
    batch: list[Prompt] = []
    for prompt in prompts:
        batch.append(prompt)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def write_shuffled(store: Store, index: PromptIndex, target: Store, seed: int) -> PromptIndex:
    """The prompts of `store` in another order, each range of a variant shuffled in itself; one range is held at a time."""
    reader = PromptReader(store)

    def shuffled() -> Iterator[Prompt]:
        generator = random.Random(seed)
        for one in index.variants:
            prompts = reader.read(one.start, one.stop)
            generator.shuffle(prompts)
            yield from prompts

    return write_prompts(target, shuffled())
