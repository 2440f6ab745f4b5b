"""Reading the answers of a run shard by shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.metrics import answers
from wdct_dist.metrics.answers import ShardFiles
from wdct_dist.tables import schema
from wdct_dist.tables.shards import encode


@pytest.fixture
def shards(tmp_path: Path, ten: Any) -> list[str]:
    """The ten answers in four shards, in a folder whose name could be taken for a pattern."""
    folder = tmp_path / "run [v1]* 甲"
    folder.mkdir()
    names = []
    for start in range(0, 10, 3):
        name = str(folder / f"{start}.arrow")
        Path(name).write_bytes(encode(ten.answers.slice(start, 3), {"start": start})[0])
        names.append(name)
    return names


def read(name: str) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(Path(name).read_bytes())).read_all()


@pytest.mark.parametrize("reader", [None, read], ids=["local files", "a reader"])
@pytest.mark.parametrize("batch_rows", [1, 4, 50_000])
def test_all_rows_of_all_shards_are_there_once(
    shards: list[str], ten: Any, reader: Any, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BATCH_ROWS", batch_rows)
    found = ShardFiles({"c": shards}, reader).tables("c").collect(engine="streaming")
    assert found.columns == schema.ANSWERS.names
    assert sorted(found["prompt_id"]) == sorted(ten.answers["prompt_id"].to_pylist())


@pytest.mark.parametrize("reader", [None, read], ids=["local files", "a reader"])
def test_columns_rows_and_limits_are_chosen_lazily(shards: list[str], reader: Any) -> None:
    table = ShardFiles({"c": shards}, reader).tables("c")
    assert table.select("trial", "error").collect().columns == ["trial", "error"]
    assert table.filter(pl.col("error").is_not_null()).collect().height == 1
    assert table.head(4).collect().height == 4


def test_a_checkpoint_without_shards_has_an_empty_table() -> None:
    table = ShardFiles({"b": [], "a": []}).tables("b").collect()
    assert (table.height, table.columns) == (0, schema.ANSWERS.names)


def test_checkpoints_keep_their_order(shards: list[str]) -> None:
    assert ShardFiles({"z": shards, "a": shards}).checkpoints() == ["z", "a"]
