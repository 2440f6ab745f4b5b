from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from wdct_dist.errors import DataError
from wdct_dist.items import load
from wdct_dist.items.fetch import WDCT_CSV
from wdct_dist.items.load import locate, position_word, read_records
from wdct_dist.items.record import item_from_record
from wdct_dist.items.types import Item, Question

WORD = "Is it good?\nA. It is good\nB. It is harmful"
DEED = "A friend shows you.\nWhat now?\nA. Take it up\nB. Leave it"


def items(path: Path) -> list[Item]:
    """The items of a file in which every record can be read without a fault."""
    found = []
    for record in read_records(path):
        assert record.faults == ()
        assert record.item is not None
        found.append(record.item)
    return found


def faults(path: Path) -> list[tuple[int, str | None, str | None, str]]:
    return [(r.position, r.item_id, fault.side, fault.rule) for r in read_records(path) for fault in r.faults]


# CSV


def test_a_csv_row_becomes_an_item(write_csv) -> None:
    path = write_csv(["Theory", " t1 ", WORD, DEED, "B"], ["Opinion", "t2", WORD, DEED, ""])
    first, second = items(path)
    assert first == Item(
        item_id="t1",
        domain="Theory",
        questions={
            "word": Question("Is it good?", ("It is good", "It is harmful")),
            "deed": Question("A friend shows you.\nWhat now?", ("Take it up", "Leave it")),
        },
        correct_option=1,
    )
    assert (second.item_id, second.correct_option) == ("t2", None)


def test_the_public_file_is_read_whole(public_folder) -> None:
    found = items(public_folder / "WDCT.csv")
    assert len(found) == 1225
    assert len({item.item_id for item in found}) == 1225
    assert sum(item.num_options > 2 for item in found) == 14
    assert sum(item.correct_option == 0 for item in found) == 601
    assert all(len(item.questions["word"].options) == len(item.questions["deed"].options) for item in found)
    stripped = [question for item in found for question in item.questions.values()]
    assert all(text == text.strip() for question in stripped for text in (question.question, *question.options))


def test_positions_in_a_csv_are_the_lines_on_which_records_begin(write_csv) -> None:
    path = write_csv(["Opinion", "a", WORD, DEED, ""], ["Opinion", "b", WORD, DEED, ""])
    lines = path.read_text().splitlines()
    assert [lines[record.position - 1].split(",")[1] for record in read_records(path)] == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_blank_lines_and_spaces_change_nothing(write_csv, end) -> None:
    spaced = "  Is it good? \n\nA.  It is good \n B.\tIt is harmful\n\n"
    path = write_csv(["Opinion", "a", spaced, DEED, ""], ["", "", " ", "", ""], [])
    path.write_bytes(re.sub(rb"\r\n|\r|\n", end.encode(), path.read_bytes()))
    [item] = items(path)
    assert item.questions["word"] == Question("Is it good?", ("It is good", "It is harmful"))
    assert item.questions["deed"].question == "A friend shows you.\nWhat now?"


def test_a_byte_order_mark_is_not_part_of_the_text(write_csv, write_jsonl, plain) -> None:
    for path in (write_csv(["Opinion", "a", WORD, DEED, ""]), write_jsonl(plain())):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert items(path)[0].domain == "Opinion"


def test_columns_may_be_in_any_order_and_have_company(write_csv) -> None:
    path = write_csv(["x", DEED, WORD, "a", "Opinion"], header="note,act,speak,id,Type")
    assert items(path)[0].questions["deed"].options == ("Take it up", "Leave it")


def test_columns_named_after_a_language_are_translations(write_csv) -> None:
    chinese = ["好吗？\nA. 好\nB. 不好", "怎么办？\nA. 接受\nB. 拒绝"]
    header = "Type,id,speak,act,correct_answer,speak_zh,act_zh,speak_note"
    path = write_csv(["Opinion", "a", WORD, DEED, "", *chinese, "x"], ["Opinion", "b", WORD, DEED, "", " ", "", ""], header=header)
    with_translation, without = items(path)
    assert list(with_translation.translations) == ["zh"]
    assert with_translation.translations["zh"]["word"] == Question("好吗？", ("好", "不好"))
    assert with_translation.translations["zh"]["deed"] == Question("怎么办？", ("接受", "拒绝"))
    assert without.translations == {}


def test_a_stem_that_looks_like_an_option_stays_a_stem(write_csv) -> None:
    path = write_csv(["Opinion", "a", "A. Smith asks:\nwhich?\nA. x\nB. y", "The\nU.S. law says:\nA. x\nB. y", ""])
    [item] = items(path)
    assert item.questions["word"] == Question("A. Smith asks:\nwhich?", ("x", "y"))
    assert item.questions["deed"] == Question("The\nU.S. law says:", ("x", "y"))


@pytest.mark.parametrize(
    "options",
    ["A. x\nC. y", "B. x\nA. y", "A. x\nA. y", "B. x\nC. y", "A. x\nB. y\nD. z"],
    ids=["gap", "reversed", "repeated", "late", "gap at the end"],
)
def test_labels_out_of_order_are_named_and_the_item_still_read(write_csv, options) -> None:
    path = write_csv(["Opinion", "a", f"Why?\n{options}", DEED, ""])
    [record] = read_records(path)
    assert [(fault.side, fault.rule) for fault in record.faults] == [("word", "label-order")]
    assert record.item is not None
    assert record.item.questions["word"].question == "Why?"


def test_labels_out_of_order_in_a_translation_are_named(write_csv) -> None:
    path = write_csv(["Opinion", "a", WORD, DEED, WORD, "怎么办？\nB. x\nA. y"], header="Type,id,speak,act,speak_zh,act_zh")
    [record] = read_records(path)
    assert [fault.message for fault in record.faults] == ["labels of the zh translation are B, A; they must be A, B and so on, each once"]


@pytest.mark.parametrize("cell", ["Why?", "Why? A. x B. y", "Why?\na. x\nb. y", "Why?\nA. x\nB. y\nPlease choose.", "Why?\nA) x\nB) y"])
def test_text_without_option_lines_at_its_end_has_no_options(write_csv, cell) -> None:
    [item] = items(write_csv(["Opinion", "a", cell, DEED, ""]))
    assert item.questions["word"].options == ()


def test_bytes_that_are_not_utf8_cost_one_csv_record_only(write_csv) -> None:
    path = write_csv(*(["Opinion", name, WORD, DEED, ""] for name in "abc"))
    lines = path.read_bytes().replace(b",b,", b",b\xe9,").replace(b',c,"Is', b',c,"\xff\xfeIs')
    path.write_bytes(lines)
    assert faults(path) == [(8, None, None, "encoding"), (14, "c", "word", "encoding")]
    assert [record.item is None for record in read_records(path)] == [False, True, True]


@pytest.mark.parametrize(
    ("damage", "positions"),
    [
        (lambda text: text.replace("Opinion,b,", 'Opinion,"b"x,'), [8, 9, 10]),
        (lambda text: text.replace("Opinion,b,", "Opinion,b,,"), [8]),
        (lambda text: text.replace("Opinion,b,", "Opinion,"), [8]),
        (lambda text: text + 'Opinion,d,"Why?\nA. x', [20]),
    ],
    ids=["quote inside", "too many columns", "too few columns", "quote never closed"],
)
def test_malformed_csv_is_a_fault_of_its_record(write_csv, damage, positions) -> None:
    path = write_csv(*(["Opinion", name, WORD, DEED, ""] for name in "abc"))
    path.write_text(damage(path.read_text()))
    found = faults(path)
    assert [position for position, *_ in found] == positions
    assert {rule for *_, rule in found} == {"unparsable"}
    assert {"a", "c"} <= {record.item_id for record in read_records(path)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; its first line must name the columns Type, id, speak, act and"),
        (b"Type,id,speak\nx,y,z\n", "lacks the column act; it has: Type, id, speak."),
        (b"Type;id;speak;act;correct_answer\n", "separated by commas, in UTF-8"),
        ("Type,id,speak,act\n".encode("utf-16"), "lacks the columns Type, id, speak, act; it has: \\udcff\\udcfeT\\x00y"),
        (b"Type,id,id,speak,act\n", "has the column 'id' more than once"),
        (b'Type,"id,speak', "the first line is not CSV"),
    ],
    ids=["empty", "column lacking", "semicolons", "utf-16", "column twice", "open quote"],
)
def test_a_csv_without_the_columns_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        list(read_records(path))


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(load, "_LONGEST_LINE", 1000)
    path = tmp_path / name
    path.write_text("x" * 2000)
    with pytest.raises(DataError, match="has a line of more than"):
        list(read_records(path))


# JSONL


def test_a_jsonl_line_becomes_an_item_and_blank_lines_count_as_lines(write_jsonl, plain) -> None:
    path = write_jsonl(plain(1, correct_option=1), "", plain(2))
    records = list(read_records(path))
    assert [(record.position, record.item_id) for record in records] == [(1, "item-1"), (3, "item-2")]
    assert records[0].item == item_from_record(plain(1, correct_option=1))


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        ('{"item_id": "x",', "unparsable", "not JSON: Expecting property name"),
        ("[1, 2]", "unparsable", "the record is a list; it must be an object"),
        ("[" * 100_000, "unparsable", "not JSON"),
        ('{"item_id": ' + "9" * 5000 + "}", "unparsable", "not JSON: Exceeds the limit"),
        ("{}", "unparsable", "lacks item_id, domain, word, deed; it has nothing"),
        (b'{"item_id": "caf\xe9"}', "encoding", "byte 16 of the line is not UTF-8: 0xe9"),
    ],
    ids=["cut off", "not an object", "very deep", "huge number", "empty", "latin-1"],
)
def test_a_malformed_line_is_a_fault_of_its_record_only(write_jsonl, plain, line, rule, message) -> None:
    records = list(read_records(write_jsonl(plain(1), line, plain(2))))
    assert [record.item is None for record in records] == [False, True, False]
    [fault] = records[1].faults
    assert (records[1].position, fault.rule) == (2, rule)
    assert fault.message.startswith(message)


def test_half_a_surrogate_pair_written_as_an_escape_is_an_encoding_fault(write_jsonl, plain) -> None:
    line = json.dumps(plain(1)).replace("good?", "good \\ud83d?")
    assert faults(write_jsonl(line)) == [(1, "item-1", "word", "encoding")]
    assert items(write_jsonl(line.replace("\\ud83d", "\\ud83d\\ude00")))[0].questions["word"].question == "Is habit 1 good 😀?"


# Parquet and Arrow


def write_table(path: Path, table: pa.Table, how: str) -> Path:
    path = path / f"items.{how.partition(' ')[0]}"
    if how == "parquet":
        parquet.write_table(table, path, row_group_size=3)
    elif how == "feather":
        feather.write_feather(table, path, compression="zstd")
    else:
        new = ipc.new_stream if how.endswith("stream") else ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    return path


FORMATS = ["parquet", "feather", "arrow", "ipc", "arrow stream"]


@pytest.mark.parametrize("how", FORMATS)
def test_nested_columns_give_the_items_of_the_json_lines(tmp_path, plain, how) -> None:
    rich = {
        "translations": {"zh": {"word": plain()["word"], "deed": plain()["deed"]}},
        "paraphrases": {"word": [plain(5)["word"]], "deed": []},
        "demonstrations": {"word": {"belief": "I like it.", "option": 1}, "deed": {"belief": "I do.", "option": 1}},
        "correct_option": 1,
    }
    rows: list[dict[str, Any]] = [plain(number) for number in range(9)] + [plain(9, **rich)]
    table = pa.Table.from_pylist(rows, schema=pa.Table.from_pylist([rows[-1]]).schema)
    path = write_table(tmp_path, table, how)
    assert items(path) == [item_from_record(row) for row in rows]
    assert [record.position for record in read_records(path)] == list(range(1, 11))


@pytest.mark.parametrize("how", FORMATS)
def test_flat_columns_are_read_like_the_csv(tmp_path, write_csv, how) -> None:
    rows = [["Theory", f"t{number}", WORD, DEED, "A"] for number in range(7)]
    columns = dict(zip(["Type", "id", "speak", "act", "correct_answer"], map(list, zip(*rows, strict=True)), strict=True))
    assert items(write_table(tmp_path, pa.table(columns), how)) == items(write_csv(*rows))


def test_a_file_that_polars_wrote_is_read(tmp_path, plain) -> None:
    import polars as pl

    frame = pl.DataFrame([plain(number) for number in range(3)])
    frame.write_ipc(tmp_path / "items.arrow", compression="zstd")
    frame.write_parquet(tmp_path / "items.parquet")
    expected = [item_from_record(plain(number)) for number in range(3)]
    assert items(tmp_path / "items.arrow") == items(tmp_path / "items.parquet") == expected


def test_a_null_in_a_flat_table_is_a_missing_value(tmp_path) -> None:
    table = pa.table({"Type": ["Opinion"], "id": ["a"], "speak": pa.array([None], pa.string()), "act": [DEED]})
    path = write_table(tmp_path, table, "parquet")
    assert faults(path) == [(1, "a", None, "unparsable")]


def test_bytes_that_are_not_utf8_cost_one_row_only(tmp_path) -> None:
    names = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    table = pa.table({"Type": ["Opinion"] * 3, "id": names, "speak": [WORD] * 3, "act": [DEED] * 3})
    path = write_table(tmp_path, table, "arrow")
    assert faults(path) == [(2, None, None, "encoding")]
    assert [record.item_id for record in read_records(path)] == ["a", None, "c"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".ipc"])
@pytest.mark.parametrize("content", [b"", b"not a table at all", b"PAR1ARROW1\0\0"])
def test_a_table_of_another_format_is_refused(tmp_path, suffix, content) -> None:
    path = tmp_path / f"items{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"items\{suffix} cannot be read"):
        list(read_records(path))


def test_a_table_cut_short_is_refused(tmp_path, plain) -> None:
    table = pa.Table.from_pylist([plain(number) for number in range(9)])
    for how in FORMATS:
        path = write_table(tmp_path, table, how)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DataError, match="cannot be read"):
            list(read_records(path))


@pytest.mark.parametrize("how", ["parquet", "arrow"])
def test_a_table_with_other_columns_is_refused(tmp_path, how) -> None:
    with pytest.raises(DataError, match="has the columns prompt, reply; it must have item_id, domain, word, deed or Type"):
        list(read_records(write_table(tmp_path, pa.table({"prompt": ["x"], "reply": ["y"]}), how)))
    with pytest.raises(DataError, match="lacks the columns Type, id, act"):
        list(read_records(write_table(tmp_path, pa.table({"speak": ["x"]}), how)))


# Which file


def test_a_path_is_located_whatever_the_case_of_its_suffix(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Items.JSONL").touch()
    assert locate(str(tmp_path / "Items.JSONL")) == tmp_path / "Items.JSONL"
    assert locate("~/Items.JSONL") == tmp_path / "Items.JSONL"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.csv", "There is no item file "),
        ("folder.csv", "folder.csv is not a file;"),
        ("items.txt", "items.txt has the suffix `.txt`, so its format is not known;"),
        ("items", "items has no suffix, so its format is not known;"),
    ],
)
def test_a_path_that_cannot_be_an_item_file_is_refused_with_what_is_allowed(tmp_path, name, message) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "items.txt").touch()
    (tmp_path / "items").touch()
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        locate(str(tmp_path / name))
    assert "(.csv, .jsonl, .parquet, .arrow, .feather, .ipc), `bundled` or `wdct`" in str(caught.value)


def test_wdct_is_the_fetched_file_and_its_content_is_checked(tmp_path, monkeypatch, public_folder) -> None:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="run `wdct fetch wdct` once"):
        locate("wdct")
    path = tmp_path / WDCT_CSV.name
    path.write_bytes((public_folder / "WDCT.csv").read_bytes())
    assert locate("wdct") == path
    path.write_bytes(path.read_bytes().replace(b"children", b"Children"))
    with pytest.raises(DataError, match="run `wdct fetch wdct` again"):
        locate("wdct")


def test_reading_a_file_that_went_away_or_has_no_known_suffix_is_a_data_error(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_records(tmp_path / "gone.csv"))
    with pytest.raises(DataError, match="is not an item file"):
        list(read_records(tmp_path / "items.txt"))


def test_positions_are_lines_in_text_files_and_rows_in_tables() -> None:
    assert [position_word(Path(f"x{suffix}")) for suffix in (".csv", ".jsonl", ".ARROW", ".parquet")] == ["line", "line", "row", "row"]


def test_reading_csv_and_jsonl_imports_no_heavy_library(write_csv, write_jsonl, plain) -> None:
    paths = [str(write_csv(["Opinion", "a", WORD, DEED, ""])), str(write_jsonl(plain()))]
    program = (
        "import sys; from wdct_dist.items.audit_text import check\n"
        f"for path in {paths!r}: assert check(path)[1] == 0\n"
        "heavy = {'pyarrow', 'polars', 'numpy', 'pandas', 'omegaconf', 'ray', 'torch', 'urllib.request', 'ssl'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("added", ["act_id", "act_len", "speak_id", "note", "act_ids"])
def test_a_column_that_only_looks_like_a_translation_is_not_read(tmp_path: Path, added: str) -> None:
    file = tmp_path / "items.csv"
    file.write_text(f'Type,id,speak,act,{added}\nOpinion,o1,"Lie?\nA. Yes\nB. No","Do?\nA. I lie\nB. I do not",a17\n', encoding="utf-8")
    [record] = read_records(file)
    assert record.item is not None
    assert (dict(record.item.translations), record.faults) == ({}, ())


def test_columns_without_a_name_and_a_value_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    row = 'Opinion,o1,"Lie?\nA. Yes\nB. No","Do?\nA. I lie\nB. I do not"'
    file.write_text(f"Type,id,speak,act,,\n{row},,\n{row.replace('o1', 'o2')}\n{row.replace('o1', 'o3')},,x\n", encoding="utf-8")
    first, second, third = read_records(file)
    assert first.item is not None
    assert second.item is not None
    assert third.item is None  # its last column has a value, and no name
