from __future__ import annotations

import os
import re

import pytest

from wdct_dist.config.schema import DataConfig, OnBadItem
from wdct_dist.errors import DataError
from wdct_dist.items.selection import select_items

SAME = {"question": "Is it?", "options": ["Yes", "No"]}
ZH = {"zh": {"word": {"question": "好吗？", "options": ["好", "不好"]}, "deed": {"question": "怎么办？", "options": ["做", "不做"]}}}


@pytest.fixture
def mixed(write_jsonl, plain) -> str:
    """Items 1 to 6; 2 is bad, so is line 4, which cannot be read; 3 and 5 ask the same; only 6 is translated."""
    return str(
        write_jsonl(
            plain(1),
            plain(2, correct_option=7),
            plain(3, domain="EthV", word=SAME),
            "not JSON",
            plain(5, word=SAME),
            plain(6, domain="EthV", translations=ZH),
        )
    )


def ids(path: str, **settings: object) -> list[str]:
    data = DataConfig(path=path, on_bad_item=OnBadItem.drop)
    for key, value in settings.items():
        setattr(data, key, value)
    selection = select_items(data)
    chosen = [item.item_id for item in selection]
    assert selection.num_items == len(chosen)
    return chosen


def test_bad_items_stop_with_the_whole_report_and_a_hint(mixed) -> None:
    with pytest.raises(DataError) as caught:
        select_items(DataConfig(path=mixed))
    message = str(caught.value)
    assert re.search(r"^item-2 +- +correct-answer +the correct option is 7, of options 0 to 1 \(line 2\)$", message, re.MULTILINE)
    assert re.search(r"^\(line 4\) +- +unparsable +not JSON", message, re.MULTILINE)
    assert "2 of 6 items are bad" in message
    assert message.endswith("To leave them out and evaluate the others: data.on_bad_item: drop")


def test_dropped_items_are_counted_and_named_and_the_others_come_in_file_order(mixed) -> None:
    selection = select_items(DataConfig(path=mixed, on_bad_item=OnBadItem.drop))
    assert selection.dropped == ("item-2", "(line 4)")
    assert selection.num_items == 4
    assert [item.item_id for item in selection] == ["item-1", "item-3", "item-5", "item-6"]
    assert (selection.report.num_items, selection.report.num_bad) == (6, 2)


def test_iteration_can_be_repeated_and_nested(mixed) -> None:
    selection = select_items(DataConfig(path=mixed, on_bad_item=OnBadItem.drop))
    assert list(selection) == list(selection)
    assert sum(1 for _ in selection for _ in selection) == 16


def test_an_item_carries_the_flags_that_a_later_item_brought_it(mixed) -> None:
    selection = select_items(DataConfig(path=mixed, on_bad_item=OnBadItem.drop, limit=2))
    assert [(item.item_id, item.flags) for item in selection] == [("item-1", ()), ("item-3", ("repeated-question",))]


def test_flags_of_the_file_give_way_to_those_that_were_found(write_jsonl, plain) -> None:
    path = write_jsonl(plain(1, flags=["encoding"]))
    assert [item.flags for item in select_items(DataConfig(path=str(path)))] == [()]


def test_domains_are_chosen_first_and_the_limit_counts_what_is_left(mixed) -> None:
    assert ids(mixed, domains=["EthV"]) == ["item-3", "item-6"]
    assert ids(mixed, domains=["EthV"], limit=1) == ["item-3"]
    assert ids(mixed, limit=3) == ["item-1", "item-3", "item-5"]
    assert ids(mixed, limit=100) == ["item-1", "item-3", "item-5", "item-6"]


def test_extra_domains_are_not_flagged(write_jsonl, plain) -> None:
    path = str(write_jsonl(plain(domain="Ethics")))
    assert [item.flags for item in select_items(DataConfig(path=path))] == [("unknown-domain",)]
    assert [item.flags for item in select_items(DataConfig(path=path, extra_domains=["Ethics"]))] == [()]


def test_a_domain_that_no_item_has_is_refused_with_those_that_there_are(mixed) -> None:
    with pytest.raises(DataError, match=r"data\.domains: no item of .* is of Theory; its domains are Opinion \(2\), EthV \(2\)\."):
        ids(mixed, domains=["EthV", "Theory"])


def test_languages_are_counted_among_the_chosen_items(mixed) -> None:
    selection = select_items(DataConfig(path=mixed, on_bad_item=OnBadItem.drop, languages=["zh", "en"]))
    assert selection.num_by_language == {"zh": 1, "en": 4}


def test_a_language_that_no_chosen_item_has_is_refused_with_those_that_there_are(mixed) -> None:
    with pytest.raises(DataError, match=r"none of the 4 chosen items .* has text in de; their languages are en \(4\), zh \(1\)\."):
        ids(mixed, languages=["en", "de"])
    with pytest.raises(DataError, match=r"none of the 2 chosen items .* has text in zh; their languages are en \(2\)\."):
        ids(mixed, languages=["zh"], domains=["Opinion"])


@pytest.mark.parametrize("lines", [[], ["not JSON"]])
def test_a_file_without_an_item_to_evaluate_is_refused(write_jsonl, lines) -> None:
    with pytest.raises(DataError, match="has no item that can be evaluated"):
        ids(str(write_jsonl(*lines)))


def test_a_choice_of_nothing_is_refused(mixed) -> None:
    with pytest.raises(DataError, match=r"No item of .* is left after data\.domains \(\[\]\)"):
        ids(mixed, domains=[])


def test_a_file_that_changed_after_its_audit_is_refused(write_jsonl, plain) -> None:
    path = write_jsonl(plain(1), plain(2))
    selection = select_items(DataConfig(path=str(path)))
    status = path.stat()
    content = path.read_text()
    path.write_text(content + " \n")
    with pytest.raises(DataError, match="was changed after it was checked; start the command again"):
        list(selection)
    # the same size and time, and still fewer items than were chosen
    path.write_text(content.replace('"domain"', '"dömain"', 1)[: len(content) - 1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with pytest.raises(DataError, match="was changed after it was checked"):
        list(selection)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(selection)


def test_the_public_file_is_selected_with_its_flags(public_folder) -> None:
    selection = select_items(DataConfig(path=str(public_folder / "WDCT.csv"), domains=["Opinion", "Theory"]))
    flagged = [item.item_id for item in selection if item.flags]
    assert selection.num_items == 610
    assert sum("recorded_debate" in item_id for item_id in flagged) == 8
    assert sum("ecomics" in item_id for item_id in flagged) == 18
