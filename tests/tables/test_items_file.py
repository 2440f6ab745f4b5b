"""items.arrow: what was evaluated, with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.items.record import item_to_record
from wdct_dist.items.types import Item, Question
from wdct_dist.tables import schema
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.items_file import BATCH_ROWS, NAME, write_items
from wdct_dist.tables.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    return store


def item(number: int, **others: object) -> Item:
    sides = {"word": Question(f"Wort {number}?", ("ja", "nein", "是")), "deed": Question(f"Tat {number}?", ("a", "b", "c"))}
    return Item(f"item-{number}", "Opinion", sides, **others)  # type: ignore[arg-type]


def test_a_row_says_all_that_the_item_says(store: Store) -> None:
    write_items(store, [item(7, correct_option=2, flags=("repeated-option", "encoding"))])
    (row,) = read_table(store, NAME).to_pylist()
    record = json.loads(row.pop("record"))
    assert row == {
        "item_id": "item-7",
        "domain": "Opinion",
        "num_options": 3,
        "word_question": "Wort 7?",
        "word_options": ["ja", "nein", "是"],
        "deed_question": "Tat 7?",
        "deed_options": ["a", "b", "c"],
        "correct_option": 2,
        "flags": ["repeated-option", "encoding"],
    }
    assert record["word"]["options"] == ["ja", "nein", "是"]


def test_translations_paraphrases_and_demonstrations_are_kept_as_the_record(store: Store) -> None:
    bundled = [record.item for record in read_records(BUNDLED) if record.item is not None]
    write_items(store, bundled)
    rows = read_table(store, NAME)["record"].to_pylist()
    assert [json.loads(row) for row in rows] == [json.loads(json.dumps(item_to_record(one))) for one in bundled]
    assert {"zh"} == set(json.loads(rows[0])["translations"])


def test_many_items_are_written_in_batches_from_a_stream_and_keep_their_order(store: Store) -> None:
    count = 2 * BATCH_ROWS + 1
    write_items(store, (item(number) for number in range(count)))
    with store.open(NAME) as file:
        reader = pa.ipc.open_file(file)
        assert [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)] == [BATCH_ROWS, BATCH_ROWS, 1]
        assert reader.schema.equals(schema.ITEMS)
        assert reader.read_all()["item_id"].to_pylist() == [f"item-{number}" for number in range(count)]


def test_an_error_within_the_stream_leaves_the_old_table(store: Store) -> None:
    write_items(store, [item(1)])

    def broken() -> object:
        yield item(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_items(store, broken())  # type: ignore[arg-type]
    assert read_table(store, NAME)["item_id"].to_pylist() == ["item-1"]
