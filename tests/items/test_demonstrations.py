from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.errors import DataError
from wdct_dist.items.demonstrations import load_demonstrations
from wdct_dist.items.load import read_records
from wdct_dist.items.types import DOMAINS

HEADER = "id,Type,Prompt,Question,Belief\n"
GOOD = 'one,Opinion,asked so,"Q?\nA. a\nB. b","Belief: I believe.\nAnswer: B"\n'


def test_the_bundled_ones_are_those_of_every_item_and_some_in_chinese() -> None:
    shots = load_demonstrations("bundled")
    english = [shot for shot in shots if shot.language == "en"]
    chinese = [shot for shot in shots if shot.language == "zh"]
    assert len(english) == 2 * 96
    # three a domain and side: enough for three of other items, from the same domain or the next
    assert {(d, s) for d in DOMAINS for s in ("word", "deed")} == {(shot.domain, shot.side) for shot in chinese}
    assert len(chinese) == 24
    assert all(any("\u4e00" <= c <= "\u9fff" for c in shot.belief + shot.question.question) for shot in chinese)


def test_the_published_ones_belong_to_the_published_items(public_folder: Path) -> None:
    shots = load_demonstrations(str(public_folder / "demo.csv"))
    items = {record.item.item_id: record.item for record in read_records(public_folder / "WDCT.csv") if record.item is not None}
    assert len(shots) == 35
    for shot in shots:
        item = items[shot.item_id]
        assert shot.domain == item.domain
        assert shot.side is None
        assert len(shot.question.options) == item.num_options
        assert "Answer" not in shot.belief
        assert not shot.belief.startswith("Belief")


def test_a_row_is_a_question_a_belief_and_an_option(tmp_path: Path) -> None:
    (tmp_path / "demo.csv").write_text(HEADER + GOOD)
    (shot,) = load_demonstrations(str(tmp_path / "demo.csv"))
    assert (shot.question.question, shot.question.options, shot.belief, shot.option) == ("Q?", ("a", "b"), "I believe.", 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["lacks id", "none"]),
        ("id,Type,Question,Belief\n", ["lacks Prompt", "id, Type, Question, Belief"]),
        (HEADER, ["no rows"]),
        (HEADER + GOOD + "two,Opinion\n", ["to line 6", "another number of columns"]),
        (HEADER + GOOD.replace("A. a", "B. a"), ["labels are B, B"]),
        (HEADER + GOOD.replace("\nA. a\nB. b", ""), ["labels are none"]),
        (HEADER + GOOD.replace("\nAnswer: B", ""), ["`Answer: A`", "Belief: I believe."]),
        (HEADER + GOOD.replace("Answer: B", "Answer: C"), ["answers C", "A, B"]),
        (HEADER + GOOD.replace('B"\n', "B\n"), ["cannot be read as CSV"]),
        (b"id,Type,Prompt,Question,Belief\n\xff\xfe\n", ["cannot be read as CSV in UTF-8"]),
    ],
)
def test_a_file_that_is_none_is_named_with_its_faults(content: str | bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "demo.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as raised:
        load_demonstrations(str(path))
    for word in ["cot.demonstrations", *words]:
        assert word in str(raised.value)


def test_every_faulty_row_is_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "demo.csv").write_text(HEADER + GOOD.replace("Answer: B", "Answer: C") + GOOD + GOOD.replace("\nB. b", ""))
    with pytest.raises(DataError) as raised:
        load_demonstrations(str(tmp_path / "demo.csv"))
    assert str(raised.value).count("to line") == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        load_demonstrations(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="cannot be read"):
        load_demonstrations(str(tmp_path))
