"""Reading the run's Arrow files: whole, batch by batch, or lazily by Polars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from wdct_dist.errors import StorageError
from wdct_dist.tables.storage import Store

if TYPE_CHECKING:
    import polars as pl


def read_table(store: Store, name: str) -> pa.Table:
    """A whole Arrow file of the run; raises `StorageError` where it is not there or not readable."""
    try:
        with store.open(name) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"{store.uri}: {name} cannot be read ({str(error).splitlines()[0]}); give the `wdct evaluate` command again to mend the run."
        ) from error


def batches(store: Store, name: str) -> Iterator[pa.Table]:
    """The record batches of an Arrow file of the run, one after the other, each as a table."""
    with store.open(name) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def scan(store: Store, name: str) -> pl.LazyFrame:
    """An Arrow file of the run for Polars: streamed where it is local, read where it is not."""
    import polars as pl

    if store.local is not None:
        return pl.scan_ipc(store.path(name), glob=False)
    return pl.DataFrame(read_table(store, name)).lazy()
