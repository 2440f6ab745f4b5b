"""items.arrow: the items evaluated, written in a stream."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pyarrow as pa

from wdct_dist.items.types import Item
from wdct_dist.tables import rows, schema
from wdct_dist.tables.storage import Store

NAME = "items.arrow"
BATCH_ROWS = 1024


def write_items(store: Store, items: Iterable[Item]) -> None:
    """Writes items.arrow; memory holds one batch."""
    stream_of_items = iter(items)
    with store.writing(NAME) as stream, pa.ipc.new_file(stream, schema.ITEMS, options=schema.IPC_OPTIONS) as writer:
        while batch := list(islice(stream_of_items, BATCH_ROWS)):
            writer.write_batch(rows.items_batch(batch))
