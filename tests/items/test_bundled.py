"""The items that come with the package keep what the configurations and the documentation promise of them."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.items.types import DOMAINS, SIDES, Item
from wdct_dist.items.validate import audit

pytestmark = pytest.mark.skipif(not BUNDLED.is_file(), reason="wdct_dist/items/data/bundled.jsonl is not written yet")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [record.item for record in read_records(BUNDLED) if record.item is not None]


def test_the_audit_finds_no_problem_of_any_severity() -> None:
    report = audit(read_records(BUNDLED), DOMAINS)
    assert report.problems == ()
    assert report.num_items >= 96


def test_each_domain_has_at_least_24_items(items) -> None:
    counts = Counter(item.domain for item in items)
    assert counts.keys() == set(DOMAINS)
    assert min(counts.values()) >= 24


def test_each_domain_has_items_of_two_three_and_four_options(items) -> None:
    for domain in DOMAINS:
        assert {item.num_options for item in items if item.domain == domain} >= {2, 3, 4}


def test_every_item_is_translated_into_chinese_on_both_sides(items) -> None:
    for item in items:
        for side in SIDES:
            translated = item.question(side, "zh")
            assert translated is not None, item.item_id
            for text in (translated.question, *translated.options):
                assert any("\u4e00" <= character <= "\u9fff" for character in text), (item.item_id, text)


def test_every_item_has_two_paraphrases_a_side(items) -> None:
    assert {(len(item.paraphrases["word"]), len(item.paraphrases["deed"])) for item in items} == {(2, 2)}


def test_every_item_has_demonstrations_that_choose_the_same_option_on_both_sides(items) -> None:
    for item in items:
        chosen = {item.demonstrations[side].option for side in SIDES}
        assert len(chosen) == 1, item.item_id
        assert item.correct_option is None or chosen == {item.correct_option}, item.item_id


def test_items_with_a_right_answer_are_those_of_the_domains_that_have_one(items) -> None:
    assert {item.domain for item in items if item.correct_option is not None} == {"EthV", "Theory"}
    assert all(item.correct_option is not None for item in items if item.domain in ("EthV", "Theory"))


@pytest.mark.parametrize("domain", ["EthV", "Theory"])
@pytest.mark.parametrize("num_options", [2, 3, 4])
def test_correct_options_are_spread_evenly_over_the_places(items, domain, num_options) -> None:
    counts = Counter(item.correct_option for item in items if item.domain == domain and item.num_options == num_options)
    places = [counts[option] for option in range(num_options)]
    assert max(places) - min(places) <= 2


def test_no_text_carries_a_label_of_its_own(items) -> None:
    for item in items:
        for side in SIDES:
            for question in (item.questions[side], *item.paraphrases[side], item.translations["zh"][side]):
                assert not any(option[:2] in ("A.", "B.", "C.", "D.", "A)", "B)") for option in question.options), item.item_id


def test_the_bundled_items_are_checked_in_well_under_a_second() -> None:
    def seconds() -> float:
        start = time.process_time()
        audit(read_records(BUNDLED), DOMAINS)
        return time.process_time() - start

    # the best of several: a shared machine can only make it slower
    assert min(seconds() for _ in range(5)) < 0.5
