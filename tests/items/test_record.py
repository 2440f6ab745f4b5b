from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wdct_dist.errors import DataError
from wdct_dist.items.record import is_language, item_from_record, item_to_record, option_of_label, read_record, shown
from wdct_dist.items.types import SIDES, Demonstration, Item, Question

# No limit on time: the machine may be busy with other work.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

text = st.text(max_size=30).map(str.strip)
question = st.builds(Question, text, st.lists(text, max_size=5).map(tuple))
side = st.sampled_from(SIDES)
item = st.builds(
    Item,
    item_id=text,
    domain=text,
    questions=st.fixed_dictionaries({"word": question, "deed": question}),
    correct_option=st.none() | st.integers(-3, 9),
    translations=st.dictionaries(st.sampled_from(["zh", "de", "pt-BR"]), st.dictionaries(side, question, min_size=1)),
    paraphrases=st.dictionaries(side, st.lists(question, max_size=3).map(tuple)),
    demonstrations=st.dictionaries(side, st.builds(Demonstration, text, st.integers(-2, 6))),
    flags=st.lists(st.sampled_from(["repeated-option", "encoding"]), unique=True).map(tuple),
)


@unhurried
@given(item)
def test_an_item_survives_its_plain_form_and_json(item: Item) -> None:
    assert item_from_record(item_to_record(item)) == item
    assert item_from_record(json.loads(json.dumps(item_to_record(item)))) == item


keys = st.sampled_from(["item_id", "domain", "word", "deed", "question", "options", "zh", "translations", "paraphrases", "option"])
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
)


@unhurried
@given(json_value)
def test_reading_any_json_value_never_raises_and_never_gives_an_item_with_a_structural_fault(raw: object) -> None:
    record = read_record(7, raw)
    assert record.position == 7
    assert (record.item is None) == any(fault.rule in ("unparsable", "encoding") for fault in record.faults)


def test_white_space_around_texts_is_stripped(plain) -> None:
    raw = plain(item_id=" x ", word={"question": " Why?\n", "options": ["\ta ", "　b　"]})
    read = item_from_record(raw)
    assert read.item_id == "x"
    assert read.questions["word"] == Question("Why?", ("a", "b"))


def test_a_label_may_stand_in_the_place_of_the_correct_option(plain) -> None:
    assert item_from_record(plain(correct_answer="B")).correct_option == 1
    assert item_from_record(plain(correct_answer="B", correct_option=1)).correct_option == 1
    assert item_from_record(plain(correct_option=1.0)).correct_option == 1
    assert item_from_record(plain(correct_answer="", correct_option=None)).correct_option is None


def test_a_number_as_id_is_taken_as_it_is_written(plain) -> None:
    assert item_from_record(plain(item_id=12)).item_id == "12"


def test_a_map_column_and_null_structs_are_read_like_objects(plain) -> None:
    translated = plain()["word"]
    raw = plain(
        translations=[("zh", {"word": translated, "deed": None}), ("de", None)],
        paraphrases={"word": None, "deed": None},
        demonstrations=None,
    )
    read = item_from_record(raw)
    assert read.translations == {"zh": {"word": Question("Is habit 1 good?", ("It is good", "It is harmful"))}}
    assert read.paraphrases == {}
    assert read.demonstrations == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_id": None, "word": None}, "lacks item_id, word; it has domain, deed"),
        ({"item_id": True}, "item_id is True; it must be text"),
        ({"domain": ["x"]}, "domain is a list; it must be text"),
        ({"word": "Why?"}, 'the question is the text "Why?"; it must be an object'),
        ({"word": {"question": "Why?", "options": "a"}}, 'options of the question is the text "a"; it must be a list'),
        ({"word": {"question": "Why?", "options": ["a", 2]}}, "option 1 of the question is 2; it must be text"),
        ({"word": {"options": ["a", "b"]}}, "the text of the question is missing; it must be text"),
        ({"translations": {"en": {}}}, "translations has en; a language is a code such as zh (en is the item's own text)"),
        ({"translations": {"chinese": {}}}, "translations has chinese; a language is a code"),
        ({"translations": {"zh": {"speak": {}}}}, "zh translation has speak; a side is word or deed"),
        ({"translations": ["zh"]}, "translations is a list; it must be an object"),
        ({"paraphrases": {"word": {"question": "Why?"}}}, "paraphrases is an object; it must be a list"),
        ({"paraphrases": {"word": [None]}}, "paraphrase 0 is missing; it must be an object"),
        ({"demonstrations": {"deed": {"belief": "So.", "option": "A"}}}, 'option of the demonstration is the text "A"'),
        ({"demonstrations": {"deed": "A"}}, 'the demonstration is the text "A"; it must be an object'),
        ({"word": {"question": "\ud83d", "options": ["a", "b"]}}, "the text of the question has bytes that are not UTF-8: \\ud83d"),
    ],
)
def test_what_is_not_in_the_plain_form_is_named(plain, changes, message) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        item_from_record(plain(**changes))


def test_every_fault_of_a_record_is_in_one_message(plain) -> None:
    raw = plain(domain=3.5, demonstrations={"word": {"belief": 1, "option": 0}}, correct_option="A")
    assert [fault.rule for fault in read_record(1, raw).faults] == ["unparsable", "correct-answer", "unparsable"]
    with pytest.raises(DataError, match=r"^item item-1: domain is 3\.5.*; correct_option is .*; the belief of the demonstration is 1"):
        item_from_record(raw)


@pytest.mark.parametrize(
    ("option", "answer", "message"),
    [
        (None, "AB", "correct answer is AB; it must be a label such as A, or empty"),
        (None, "a", "correct answer is a;"),
        (None, 0, "correct answer is 0;"),
        (0, "B", "correct_option is 0 and correct_answer is B"),
        (True, None, "correct_option is True; it must be an option index or null"),
        (0.5, None, "correct_option is 0.5;"),
    ],
)
def test_a_correct_answer_that_means_no_option_leaves_the_item_readable_with_a_fault(plain, option, answer, message) -> None:
    record = read_record(1, plain(correct_option=option, correct_answer=answer))
    assert record.item is not None
    assert [fault.rule for fault in record.faults] == ["correct-answer"]
    assert record.faults[0].message.startswith(message)


def test_a_misspelt_key_is_suspicious_and_a_key_of_ones_own_is_not(plain) -> None:
    faults = read_record(1, plain(translation={}, source="a book")).faults
    assert [(fault.rule, fault.severity, fault.message) for fault in faults] == [
        ("unknown-key", "suspicious", "key translation is not read; translations is")
    ]


def test_shown_text_is_one_printable_line_of_bounded_length() -> None:
    assert shown("a\nb\x1b[31m\udcff é 中 …") == "a\\nb\\x1b[31m\\udcff é 中 …"
    assert shown("x" * 100) == "x" * 59 + "…"
    assert shown("x" * 100, None) == "x" * 100


@pytest.mark.parametrize(("label", "option"), [("A", 0), ("Z", 25), ("a", None), ("", None), ("AB", None), ("Ä", None)])
def test_labels_of_the_data_mean_options(label, option) -> None:
    assert option_of_label(label) == option


@pytest.mark.parametrize(
    ("code", "known"), [("zh", True), ("pt-BR", True), ("zh_Hant", True), ("en", False), ("1", False), ("note", False)]
)
def test_language_codes_are_told_from_other_names(code, known) -> None:
    assert is_language(code) is known
