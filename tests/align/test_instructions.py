from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from wdct_dist.align.instructions import BUNDLED, EMPTY, OTHER, REPEATED, read_instructions
from wdct_dist.errors import DataError
from wdct_dist.prompts.types import Message

RECORDS = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Say yes.", "input": "", "output": " yes\n"},
    {"instruction": "Say no.", "output": "no"},
    {"instruction": "Say no.", "input": None, "output": "no"},
    {"instruction": "Say nothing.", "input": "", "output": ""},
]


def written(path: Path) -> Path:
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(RECORDS))
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, RECORDS)))
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(RECORDS), path)
    return path


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples_and_counts_what_is_left_out(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"set.{suffix}")
    found = read_instructions(str(path))
    assert [(one.messages, one.completion) for one in found.examples] == [
        ((Message("user", "Add.\n\n1 and 2"),), "3"),
        ((Message("user", "Say yes."),), "yes"),
        ((Message("user", "Say no."),), "no"),
    ]
    assert {(one.source, one.item_id) for one in found.examples} == {("instruction", None)}
    assert found.left_out == {REPEATED: 1, EMPTY: 1}
    assert found.lines()[0] == f"instructions: 3 examples from {path}"


def test_a_data_set_of_the_hub_is_read_from_its_training_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    folder = tmp_path / "datasets--org--set"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    written(snapshot / "train-00000-of-00001.parquet")
    written(snapshot / "other.jsonl")
    (snapshot / "test-00000-of-00001.parquet").write_bytes(b"not read")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(read_instructions("org/set").examples) == 3
    with pytest.raises(DataError, match="org/none is no file on this machine, and the hub did not give a data set of that name"):
        read_instructions("org/none")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"instruction": "x"}', "a.json cannot be read as json: it is not a list of records"),
        ("a.jsonl", '{"instruction": "x", "output": "y"}\n{', "a.jsonl cannot be read as jsonl: line 2: Expecting"),
        ("a.parquet", "PAR", "a.parquet cannot be read as parquet"),
        ("a.csv", "instruction,output", "a.csv: the suffix '.csv' is not read; give a file"),
        ("a.jsonl", "", "a.jsonl has no instruction example. A record has"),
        ("a.jsonl", '{"prompt": "x", "completion": "y"}', f"has no instruction example; 1 records: {OTHER}"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_instructions(str(tmp_path / name))
    assert message in str(caught.value)


def test_a_set_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"There is no instruction set nowhere\.jsonl; give a file"):
        read_instructions("nowhere.jsonl")


def test_the_bundled_set_has_many_examples_of_many_kinds_and_none_twice() -> None:
    records = [json.loads(line) for line in BUNDLED.read_text(encoding="utf-8").splitlines()]
    found = read_instructions("bundled")
    assert len(found.examples) == len(records) >= 300
    assert found.left_out == {}
    assert len({(record["instruction"], record["input"]) for record in records}) == len(records)
    kinds = Counter(record["kind"] for record in records)
    assert len(kinds) >= 20
    assert max(kinds.values()) <= len(records) / 10
    assert all(1 <= len(one.completion.split()) <= 60 for one in found.examples)
    assert len({one.completion for one in found.examples}) >= 0.9 * len(records)
    assert sum(bool(record["input"]) for record in records) >= 80
