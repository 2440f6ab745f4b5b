"""Shards prove themselves."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from wdct_dist.engine.protocol import Response
from wdct_dist.tables.manifest import find_completed, overlapped, read_manifest, write_manifest
from wdct_dist.tables.rows import answers_table
from wdct_dist.tables.shards import DIGEST_LENGTH, Shard, ShardDamaged, ShardKey, content_hash, encode, parse_name, verify
from wdct_dist.tables.storage import Store

DIGEST = "0123456789abcdef" * 4


def responses(count: int, trial: int = 0) -> list[Response]:
    generator = random.Random(count)
    return [
        Response(f"p{n}", trial, error="too long")
        if n % 7 == 3
        else Response(f"p{n}", trial, (generator.gauss(-1, 1), -2.5), 0.9, "A ✓ 是", None, "d" * 16, "length", 100 + n, 32, 1)
        for n in range(count)
    ]


def shard(start: int, stop: int, trial: int = 0) -> tuple[str, bytes]:
    name = ShardKey(DIGEST, trial, start, stop).name("org/model@step 1")
    data, _ = encode(answers_table("org/model@step 1", DIGEST, responses(stop - start, trial)), {"seed": 1})
    return name, data.to_pybytes()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    for start in range(0, 300, 100):
        name, data = shard(start, start + 100)
        store.write(name, data)
    return store


def test_a_name_says_which_rows_it_holds() -> None:
    name, _ = shard(100, 200, trial=3)
    assert parse_name(name) == ShardKey(DIGEST[:DIGEST_LENGTH], 3, 100, 200)
    assert parse_name("answers/readme.txt") is None


def test_an_answers_file_is_readable_by_arrow_as_it_is() -> None:
    _, data = shard(0, 10)
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    assert table.num_rows == 10
    assert table["option_logprobs"].type == pa.list_(pa.float64())


def test_the_content_hash_does_not_depend_on_chunks() -> None:
    table = answers_table("a", DIGEST, responses(50))
    chunked = pa.concat_tables([table.slice(0, 13), table.slice(13, 20), table.slice(33)])
    assert content_hash(chunked) == content_hash(table)


@pytest.mark.parametrize("column", ["option_logprobs", "text", "label_mass", "error", "num_prompt_tokens"])
def test_the_content_hash_sees_every_column(column: str) -> None:
    rows = responses(5)
    table = answers_table("a", DIGEST, rows)
    changed = {"option_logprobs": (-1.0, -2.0), "text": "B", "label_mass": 0.5, "error": "e", "num_prompt_tokens": 1}
    other = Response(**{**{name: getattr(rows[0], name) for name in rows[0].__slots__}, column: changed[column]})
    assert content_hash(answers_table("a", DIGEST, [other, *rows[1:]])) != content_hash(table)


def test_whole_shards_are_completed_without_a_manifest(store: Store) -> None:
    assert len(find_completed(store).shards) == 3


def test_a_truncated_shard_is_noticed_and_deleted(store: Store) -> None:
    name, data = shard(0, 100)
    store.write(name, data[: len(data) // 2])
    completed = find_completed(store)
    assert list(completed.damaged) == [name]
    assert not store.exists(name)


def test_any_flipped_bit_is_noticed_with_the_manifest(store: Store) -> None:
    write_manifest(store, find_completed(store).shards.values())
    name, data = shard(100, 200)
    for position in random.Random(0).sample(range(len(data)), 20):
        damaged = bytearray(data)
        damaged[position] ^= 4
        store.write(name, bytes(damaged))
        assert find_completed(store).damaged == {name: "its hash is not the one in the manifest"}


def test_a_flipped_bit_in_the_values_is_noticed_without_the_manifest() -> None:
    name, data = shard(100, 200)
    noticed = harmless = 0
    for position in random.Random(1).sample(range(len(data)), 300):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        try:
            verify(name, bytes(damaged))
        except ShardDamaged:
            noticed += 1
            continue
        # what is not noticed must not matter: the values are those that were written
        table = pa.ipc.open_file(pa.BufferReader(bytes(damaged))).read_all()
        assert content_hash(table) == content_hash(pa.ipc.open_file(pa.BufferReader(data)).read_all())
        harmless += 1
    assert noticed > 200
    assert noticed + harmless == 300


def test_a_deleted_shard_that_the_manifest_lists_is_noticed(store: Store) -> None:
    write_manifest(store, find_completed(store).shards.values())
    name, _ = shard(0, 100)
    store.delete(name)
    completed = find_completed(store)
    assert completed.damaged == {name: "listed in the manifest, but not there"}
    assert len(completed.shards) == 2


def test_a_manifest_that_lies_is_noticed(store: Store) -> None:
    shards = list(find_completed(store).shards.values())
    write_manifest(store, [Shard(shards[0].name, shards[0].rows, "0" * 64), Shard(shards[1].name, 7, shards[1].sha256), shards[2]])
    completed = find_completed(store)
    assert set(completed.damaged) == {shards[0].name, shards[1].name}
    assert list(completed.shards) == [shards[2].name]


def test_a_manifest_that_is_not_readable_is_rebuilt_from_the_shards(store: Store) -> None:
    store.write("manifest.json", b'{"version": 1, "shards": [{"na')
    assert read_manifest(store) == {}
    assert len(find_completed(store).shards) == 3


def test_a_shard_under_another_units_name_is_damaged(store: Store) -> None:
    _, data = shard(0, 100)
    other = ShardKey(DIGEST, 1, 0, 100).name("org/model@step 1")
    store.write(other, data)
    assert find_completed(store).damaged[other] == "its rows are of another unit than its name says"


def test_of_overlapping_shards_the_longer_is_kept() -> None:
    def named(start: int, stop: int, trial: int = 0) -> Shard:
        return Shard(ShardKey(DIGEST[:16], trial, start, stop).name("a"), stop - start, "")

    whole, first, second = named(0, 256), named(0, 32), named(224, 256)
    other_trial, next_one = named(0, 32, 1), named(256, 300)
    assert set(overlapped([first, whole, second, other_trial, next_one])) == {first.name, second.name}
