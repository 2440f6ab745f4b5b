"""Frames with the columns of a table's contract, there and back."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from wdct_dist.tables import schema
from wdct_dist.tables.storage import Store


def polars_schema(table_schema: pa.Schema) -> pl.Schema:
    """The columns as Polars names their types."""
    empty = pl.from_arrow(table_schema.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return empty.schema


def write_frame(store: Store, name: str, frame: pl.DataFrame, table_schema: pa.Schema) -> None:
    """Writes a frame as the Arrow file `name` of the run, with the columns of `table_schema` in its order."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).select(table_schema.names).cast(table_schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table_schema, options=schema.IPC_OPTIONS) as writer:
        writer.write_table(table)
    store.write(name, sink.getvalue())
