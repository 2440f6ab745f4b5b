from __future__ import annotations

import re

import pytest

from wdct_dist.errors import DataError
from wdct_dist.items.audit_text import check


def test_a_faultless_set_can_be_evaluated(write_jsonl, plain) -> None:
    path = write_jsonl(plain(1), plain(2, domain="EthV"))
    assert check(str(path)) == (
        f"{path}: 2 items\n\nby domain: Opinion 1, EthV 1\nby number of options: 2 2\nThis set can be evaluated: 2 items.",
        0,
    )


def test_bad_and_suspicious_items_are_listed_one_problem_a_line(write_jsonl, plain) -> None:
    path = write_jsonl(plain(1, correct_option=5, domain="Ethics"), "{", plain(3, word={"question": "x", "options": ["a", "A"]}))
    text, code = check(str(path))
    assert code == 2
    assert text.splitlines() == [
        f"{path}: 3 items",
        "",
        "bad: 2 problems in 2 items",
        "item      side  rule            message",
        "item-1    -     correct-answer  the correct option is 5, of options 0 to 1 (line 1)",
        "(line 2)  -     unparsable      not JSON: Expecting property name enclosed in double quotes at character 1 "
        "(a .jsonl file has one whole object on each line)",
        "",
        "suspicious: 2 problems in 2 items",
        "item    side  rule             message",
        "item-1  -     unknown-domain   domain Ethics is none of EthV, NonEthV, Opinion, Theory (data.extra_domains) (line 1)",
        "item-3  word  repeated-option  options 0 and 1 of the question are the same: A (line 3)",
        "",
        "by domain: Ethics 1, Opinion 1",
        "by number of options: 2 2",
        "This set cannot be evaluated as it is: 2 of 3 items are bad.",
    ]


def test_suspicious_items_do_not_stop_an_evaluation(write_jsonl, plain) -> None:
    path = str(write_jsonl(plain(domain="Ethics")))
    text, code = check(path)
    assert (text.splitlines()[-1], code) == ("This set can be evaluated: 1 item; 1 is suspicious.", 0)
    assert check(path, ["Ethics"])[0].endswith("This set can be evaluated: 1 item.")


def test_an_empty_set_cannot_be_evaluated(write_jsonl) -> None:
    text, code = check(str(write_jsonl()))
    assert (text.splitlines()[-1], code) == ("This set cannot be evaluated: it has no items.", 2)


def test_texts_of_the_file_cannot_break_the_lines_or_the_terminal(write_jsonl, plain) -> None:
    nasty = "a\nb\x1b[2J\u2028c" + "x" * 500
    text, _ = check(str(write_jsonl(plain(item_id=nasty, domain=nasty, word={"question": nasty, "options": [nasty, nasty]}))))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert all(line.startswith("a\\nb\\x1b[2J\\u2028c") for line in text.splitlines() if re.search("  (word|-)  ", line))
    text.encode("utf-8")


def test_a_file_that_cannot_be_read_at_all_is_a_data_error(tmp_path) -> None:
    with pytest.raises(DataError, match="There is no item file"):
        check(str(tmp_path / "absent.jsonl"))


def test_the_public_file_is_evaluable(public_folder) -> None:
    text, code = check(str(public_folder / "WDCT.csv"))
    assert code == 0
    assert "by number of options: 2 1,211, 3 13, 4 1\n" in text
    assert text.endswith("This set can be evaluated: 1,225 items; 28 are suspicious.")
