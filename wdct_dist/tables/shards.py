"""Shards: completed slices of a run's answers, each a file that can prove itself.

A shard's name says exactly which rows of the plan it holds (checkpoint, digest, trial, range of prompts), so that "done" is a
fact on disk and resuming is a subtraction. Its Arrow metadata carries a hash of its values, so that the manifest can be rebuilt
from the shards alone and a damaged shard is noticed without it. Writing a shard twice is harmless: it is the same file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wdct_dist.ids import slug
from wdct_dist.tables import schema

DIGEST_LENGTH = 16
"""Hex digits of a checkpoint's digest in a shard's name."""

_NAME = re.compile(r"answers/.*@(?P<digest>[0-9a-f]+)\.t(?P<trial>\d+)\.(?P<start>\d+)-(?P<stop>\d+)\.arrow")


class ShardDamaged(Exception):
    """A shard's bytes are not what was written."""


@dataclass(frozen=True, slots=True, order=True)
class ShardKey:
    """Which rows of the plan a shard holds: prompts `start` to `stop` (exclusive) of prompts.arrow, in one trial."""

    checkpoint_digest: str
    trial: int
    start: int
    stop: int

    def name(self, checkpoint_id: str) -> str:
        digest = self.checkpoint_digest[:DIGEST_LENGTH]
        return f"answers/{slug(checkpoint_id)}@{digest}.t{self.trial:03d}.{self.start:09d}-{self.stop:09d}.arrow"


@dataclass(frozen=True, slots=True)
class Shard:
    """A completed shard as the manifest lists it."""

    name: str
    rows: int
    sha256: str

    @property
    def key(self) -> ShardKey:
        key = parse_name(self.name)
        assert key is not None
        return key


def parse_name(name: str) -> ShardKey | None:
    """The key that a shard's name says; its digest is shortened. None for a file that is not a shard."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return ShardKey(found["digest"], int(found["trial"]), int(found["start"]), int(found["stop"]))


def encode(table: pa.Table, facts: Mapping[str, object]) -> tuple[pa.Buffer, str]:
    """The bytes of a shard and their SHA-256. `facts` (versions, seeds, unit …) travel in the Arrow metadata."""
    metadata = {
        "wdct.facts": json.dumps(facts, sort_keys=True, default=str),
        "wdct.content_sha256": content_hash(table),
    }
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema.with_metadata(metadata), options=schema.IPC_OPTIONS) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def verify(name: str, data: bytes) -> Shard:
    """The shard that these bytes are; raises `ShardDamaged` with the reason where they are not whole."""
    key = parse_name(name)
    if key is None:
        raise ShardDamaged("its name is not that of a shard")
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        # before its values are touched: damaged offsets would lead outside their buffers
        table.validate(full=True)
        found = content_hash(table)
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise ShardDamaged(f"not readable ({str(error).splitlines()[0][:120]})") from None
    stated = (table.schema.metadata or {}).get(b"wdct.content_sha256", b"").decode()
    if found != stated:
        raise ShardDamaged("its values are not those that were written")
    if table.num_rows != key.stop - key.start:
        raise ShardDamaged(f"it has {table.num_rows} rows, its name says {key.stop - key.start}")
    digests = set(table["checkpoint_digest"].unique().to_pylist())
    trials = set(table["trial"].unique().to_pylist())
    if trials != {key.trial} or {digest[:DIGEST_LENGTH] for digest in digests} != {key.checkpoint_digest}:
        raise ShardDamaged("its rows are of another unit than its name says")
    return Shard(name, table.num_rows, hashlib.sha256(data).hexdigest())


def facts_of(data: bytes) -> dict[str, Any]:
    """The facts that travel with a whole shard; see `encode`."""
    metadata = pa.ipc.open_file(pa.BufferReader(data)).schema.metadata or {}
    facts: dict[str, Any] = json.loads(metadata.get(b"wdct.facts", b"{}"))
    return facts


def content_hash(table: pa.Table) -> str:
    """SHA-256 over the values of all columns, whatever their chunks, compression or Arrow version."""
    digest = hashlib.sha256()
    for column_name in table.column_names:
        digest.update(column_name.encode())
        _feed(digest, table[column_name].combine_chunks())
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, array: pa.Array) -> None:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    digest.update(np.packbits(pc.is_valid(array).to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(array.type):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).tobytes())
        _feed(digest, array.flatten())
    elif pa.types.is_string(array.type):
        digest.update(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).tobytes())
        digest.update("".join(array.drop_null().to_pylist()).encode("utf-8", "surrogatepass"))
    else:
        digest.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())
