"""Where the answers of a run come from, checkpoint by checkpoint, without holding them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl
import pyarrow as pa

from wdct_dist.tables import schema

BATCH_ROWS = 50_000
"""Shards are read until they have this many rows together: a shard of 256 rows is too little to work on at once."""


class AnswerSource(Protocol):
    """The answers of a run."""

    def checkpoints(self) -> list[str]:
        """`checkpoint_id` of each checkpoint that has answers, in the order in which they are to be reported."""
        ...

    def tables(self, checkpoint_id: str) -> pl.LazyFrame:
        """The answers of one checkpoint, of one digest: columns of `schema.ANSWERS`, rows in any order.

        Where the run holds answers of several digests under the name, the source says which ones count.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """An `AnswerSource` over shards, by checkpoint."""

    shards: Mapping[str, Sequence[str]]
    """Names of the shards of each checkpoint, the checkpoints in the order in which they are to be reported."""
    read: Callable[[str], pa.Table] | None = field(default=None)
    """Reads a shard by its name, for stores that are not local. None: names are local paths, and Polars reads them itself.

    512,000 rows in 2,000 shards: 0.3 s by Polars, 1.4 s through `read`.
    """

    def checkpoints(self) -> list[str]:
        return list(self.shards)

    def tables(self, checkpoint_id: str) -> pl.LazyFrame:
        names = list(self.shards[checkpoint_id])
        if not names:
            return _empty().lazy()
        if self.read is None:
            # Without globs: a run directory's name may hold brackets.
            return pl.scan_ipc(names, glob=False)
        return _scan(names, self.read)


def _empty() -> pl.DataFrame:
    found = pl.from_arrow(schema.ANSWERS.empty_table())
    assert isinstance(found, pl.DataFrame)
    return found


def _scan(names: Sequence[str], read: Callable[[str], pa.Table]) -> pl.LazyFrame:
    from polars.io.plugins import register_io_source

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del batch_size
        left = n_rows
        for table in _joined(names, read, with_columns):
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if left == 0:
                return

    return register_io_source(batches, schema=_empty().schema, is_pure=True)


def _joined(names: Sequence[str], read: Callable[[str], pa.Table], columns: list[str] | None) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for name in names:
        table = read(name).select(columns or schema.ANSWERS.names).replace_schema_metadata(None)
        held.append(table)
        if sum(part.num_rows for part in held) >= BATCH_ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()
