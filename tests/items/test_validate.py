from __future__ import annotations

import re
import tracemalloc
from typing import Any

import pytest

from wdct_dist.items.load import read_records
from wdct_dist.items.record import Record, item_from_record, read_record
from wdct_dist.items.types import DOMAINS
from wdct_dist.items.validate import Audit, AuditReport, audit

QUESTION = {"question": "Is it?", "options": ["Yes", "No"]}
THREE = {"question": "Which?", "options": ["x", "y", "z"]}


def audited(*entries: object) -> AuditReport:
    return audit((read_record(position, entry) for position, entry in enumerate(entries, start=1)), DOMAINS)


def found(report: AuditReport) -> list[tuple[str | None, str | None, str, str]]:
    return [(problem.item_id, problem.side, problem.rule, problem.severity) for problem in report.problems]


def test_a_faultless_item_has_no_problem(plain) -> None:
    whole = plain(
        correct_option=1,
        translations={
            "zh": {"word": {"question": "好吗？", "options": ["好", "不好"]}, "deed": {"question": "怎么办？", "options": ["做", "不做"]}}
        },
        paraphrases={"word": [{"question": "Would you call it good?", "options": ["Good", "Harmful"]}]},
        demonstrations={"deed": {"belief": "I like it.", "option": 1}},
    )
    report = audited(whole, plain(2, domain="EthV"))
    assert report == AuditReport(2, 0, 0, (), {"Opinion": 1, "EthV": 1}, {2: 2}, {"zh": 1})


@pytest.mark.parametrize(
    ("changes", "side", "rule", "message"),
    [
        ({"domain": ""}, None, "empty-text", "domain is empty"),
        # its figures would stand in the rows of all domains together
        ({"domain": "all"}, None, "reserved-domain", "domain all is what tables call all domains together"),
        ({"deed": THREE}, None, "option-count", "2 word options and 3 deed options"),
        ({"word": {"question": "", "options": ["a", "b"]}}, "word", "empty-text", "the text of the question is empty"),
        ({"deed": {"question": "x", "options": ["a", " "]}}, "deed", "empty-text", "option 1 of the question is empty"),
        ({"correct_option": 2}, None, "correct-answer", "the correct option is 2, of options 0 to 1"),
        ({"correct_option": -1}, None, "correct-answer", "the correct option is -1"),
        ({"correct_answer": "C"}, None, "correct-answer", "the correct option is 2, of options 0 to 1"),
        ({"correct_answer": "yes"}, None, "correct-answer", "correct answer is yes; it must be a label"),
        (
            {"translations": {"zh": {"word": QUESTION, "deed": THREE}}},
            "deed",
            "translation-option-count",
            "the zh translation has 3 options",
        ),
        ({"translations": {"zh": {"word": QUESTION}}}, "deed", "translation-side", "the zh translation has the other side only"),
        ({"paraphrases": {"word": [QUESTION, THREE]}}, "word", "paraphrase-option-count", "paraphrase 1 has 3 options, the question 2"),
        ({"paraphrases": {"deed": [{"question": "x", "options": ["a", ""]}]}}, "deed", "empty-text", "option 1 of paraphrase 0 is empty"),
        (
            {"demonstrations": {"word": {"belief": "So.", "option": 2}}},
            "word",
            "demonstration-option",
            "the demonstration chooses option 2",
        ),
        ({"demonstrations": {"word": {"belief": " ", "option": 0}}}, "word", "empty-text", "the belief of the demonstration is empty"),
        ({"word": ["Is it?"]}, "word", "unparsable", "the question is a list; it must be an object"),
        ({"word": {"question": "\udcff", "options": ["a", "b"]}}, "word", "encoding", "the text of the question has bytes"),
    ],
)
def test_a_bad_item_is_named_with_its_side_and_rule(plain, changes, side, rule, message) -> None:
    report = audited(plain(), plain(2, **changes), plain(3))
    assert found(report) == [("item-2", side, rule, "bad")]
    assert report.problems[0].position == 2
    assert report.problems[0].message.startswith(message)
    assert (report.num_items, report.num_bad, report.num_suspicious) == (3, 1, 0)


@pytest.mark.parametrize(
    ("changes", "side", "rule", "message"),
    [
        ({"domain": "Ethics"}, None, "unknown-domain", "domain Ethics is none of EthV, NonEthV, Opinion, Theory"),
        (
            {"word": {"question": "x", "options": ["A  dog", "a DOG"]}},
            "word",
            "repeated-option",
            "options 0 and 1 of the question are the same",
        ),
        (
            {"translations": {"zh": {"word": {"question": "x", "options": ["狗", "狗"]}, "deed": QUESTION}}},
            "word",
            "repeated-option",
            "options 0 and 1 of the zh translation are the same",
        ),
        (
            {"paraphrases": {"deed": [{"question": "x", "options": ["dog", "Dog"]}]}},
            "deed",
            "repeated-option",
            "options 0 and 1 of paraphrase 0 are the same",
        ),
        (
            {"paraphrases": {"deed": [QUESTION, QUESTION]}},
            "deed",
            "repeated-paraphrase",
            "paraphrase 1 says the same words as paraphrase 0",
        ),
        (
            {"deed": QUESTION, "paraphrases": {"deed": [{"question": "is  IT?", "options": ["yes", "no"]}]}},
            "deed",
            "repeated-paraphrase",
            "paraphrase 0 says the same words as the question",
        ),
        (
            {"deed": QUESTION, "translations": {"zh": {"word": THREE | {"options": ["a", "b"]}, "deed": QUESTION}}},
            "deed",
            "untranslated",
            "the zh",
        ),
        ({"item_id": "item-2", "paraphrase": {}}, None, "unknown-key", "key paraphrase is not read; paraphrases is"),
        ({"demonstrations": {"word": {"belief": "It\ufffds so.", "option": 0}}}, "word", "encoding", "the belief of the demonstration"),
    ],
)
def test_a_suspicious_item_is_named_and_can_be_evaluated(plain, changes, side, rule, message) -> None:
    report = audited(plain(), plain(2, **changes), plain(3))
    assert found(report) == [("item-2", side, rule, "suspicious")]
    assert report.problems[0].message.startswith(message)
    assert (report.num_bad, report.num_suspicious) == (0, 1)


def test_too_few_options_on_one_side_are_also_an_unequal_count(plain) -> None:
    assert found(audited(plain(word={"question": "Why?", "options": ["a"]}))) == [
        ("item-1", None, "option-count", "bad"),
        ("item-1", "word", "too-few-options", "bad"),
    ]
    none = {"question": "Why?", "options": []}
    assert [rule for _, _, rule, _ in found(audited(plain(word=none, deed=none)))] == ["too-few-options"] * 2


def test_an_empty_id_is_bad_and_has_no_name(plain) -> None:
    assert found(audited(plain(item_id=" "))) == [(None, None, "empty-text", "bad")]


def test_every_problem_of_an_item_is_found_at_once(plain) -> None:
    wrong = plain(domain="Ethics", correct_option=9, word={"question": "", "options": ["a", "a", "\ufffd"]}, paraphrases={"deed": [THREE]})
    assert sorted(rule for _, _, rule, _ in found(audited(wrong))) == [
        "correct-answer",
        "empty-text",
        "encoding",
        "option-count",
        "paraphrase-option-count",
        "repeated-option",
        "unknown-domain",
    ]


def test_the_second_item_with_an_id_is_bad_and_the_first_is_not(plain) -> None:
    report = audited(plain(1), plain(2, item_id="item-1"), plain(3, item_id="item-1"))
    assert [(problem.position, problem.rule, problem.message) for problem in report.problems] == [
        (2, "repeated-id", "an earlier item, at 1, has the same id"),
        (3, "repeated-id", "an earlier item, at 1, has the same id"),
    ]


def test_all_items_with_the_same_question_are_named_in_file_order(plain) -> None:
    same = {"question": "Is  it?", "options": ["no", "YES"]}
    report = audited(plain(1, deed=QUESTION), plain(2), plain(3, deed=same), plain(4, word=QUESTION), plain(5, deed=QUESTION))
    assert [(problem.item_id, problem.side, problem.rule, problem.message) for problem in report.problems] == [
        ("item-1", "deed", "repeated-question", "item-3 asks the same: Is  it?"),
        ("item-3", "deed", "repeated-question", "item-1 asks the same: Is  it?"),
        ("item-5", "deed", "repeated-question", "item-1 asks the same: Is it?"),
    ]


def test_the_same_words_with_other_options_or_other_exponents_are_another_question(plain) -> None:
    report = audited(
        plain(1, word=QUESTION),
        plain(2, word={"question": "Is it?", "options": ["Yes", "Maybe"]}),
        plain(3, word={"question": "Area?", "options": ["x²", "x2"]}),
    )
    assert report.problems == ()


@pytest.mark.parametrize(
    "text",
    [
        "cafÃ©",
        "students�? work",
        "itâ€™s",
        "a â€“ b",
        "â€œyesâ€",
        "Â£5",
        "ï»¿Is it?",
        "ðŸ˜€",
        "ÐŸÑ€Ð¸Ð²ÐµÑ‚",
        "ä½\u00a0å¥½",
        "it\x92s",
        "bell\x07",
    ],
)
def test_text_that_was_decoded_wrongly_is_suspicious(plain, text) -> None:
    report = audited(plain(word={"question": text, "options": ["a", "b"]}))
    assert found(report) == [("item-1", "word", "encoding", "suspicious")]


@pytest.mark.parametrize(
    "text",
    [
        "café, naïve, Ünal, Ångström, Ærø, £5, 20 °C, ½, x² ± 1",
        "“Yes” – it’s… fine — really™",
        "« Déjà vu » dit-elle",
        "Er sagte: „Das macht Spaß“ …",
        "“AMANHÔ e “IRMÔ",
        "Привет, как дела?",
        "你好，世界。“引号”",
        "हिन्दी ภาษาไทย العربية 😀",
        "\\( \\frac{1}{1 - MPC} \\)\n\tsecond line",
        "“le café…” – «où»",
    ],
)
def test_text_in_many_scripts_is_not_suspicious(plain, text) -> None:
    assert audited(plain(word={"question": text, "options": ["a", "b"]})).problems == ()


def test_extra_domains_are_known(plain) -> None:
    report = audit([read_record(1, plain(domain="Ethics"))], [*DOMAINS, "Ethics"])
    assert report.problems == ()


def test_records_that_cannot_be_read_count_as_bad_items_without_a_domain(plain) -> None:
    report = audited(plain(), [], {"item_id": "x"})
    assert (report.num_items, report.num_bad) == (3, 2)
    assert (report.num_by_domain, report.num_by_options) == ({"Opinion": 1}, {2: 1})
    assert [(item_id, rule) for item_id, _, rule, _ in found(report)] == [(None, "unparsable"), ("x", "unparsable")]


def test_an_item_that_is_bad_and_suspicious_counts_as_bad(plain) -> None:
    report = audited(plain(domain="Ethics", correct_option=5))
    assert (report.num_bad, report.num_suspicious) == (1, 0)


def test_flags_hold_each_suspicious_rule_once_and_reach_back_to_the_first_asker(plain) -> None:
    running = Audit(DOMAINS)
    odd = plain(1, domain="Ethics", word={"question": "\ufffd", "options": ["\ufffd a", "\ufffd A"]})
    assert {problem.position for problem in running.feed(read_record(4, odd))} == {4}
    assert running.flags(4) == ("unknown-domain", "encoding", "repeated-option")
    problems = running.feed(read_record(9, plain(2, word=odd["word"])))
    assert {problem.position for problem in problems if problem.rule == "repeated-question"} == {4, 9}
    assert running.flags(4) == ("unknown-domain", "encoding", "repeated-option", "repeated-question")
    assert not running.is_bad(4)
    assert running.flags(5) == ()


def test_the_audit_keeps_hashes_of_items_and_not_their_texts(plain) -> None:
    def records() -> Any:
        for number in range(100):
            long = {"question": f"{number} " + "word " * 400, "options": ["a", "b"]}
            yield Record(number, f"item-{number}", item_from_record(plain(number, word=long, deed=long)))

    running = Audit(DOMAINS)
    tracemalloc.start()
    try:
        for record in records():
            running.feed(record)
        del record
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert running.report().num_items == 100
    assert kept_bytes / 100 < 1000  # each item has 4,000 characters


# The public test


def test_the_public_file_has_the_problems_that_a_careful_reader_counted(public_folder) -> None:
    report = audit(read_records(public_folder / "WDCT.csv"), DOMAINS)
    assert report.num_items == 1225
    assert report.num_bad == 0
    assert report.num_by_domain == {"Opinion": 509, "NonEthV": 115, "EthV": 500, "Theory": 101}
    assert report.num_by_options == {2: 1211, 3: 13, 4: 1}
    by_rule: dict[str, list[str]] = {}
    for problem in report.problems:
        by_rule.setdefault(f"{problem.rule} {problem.side}", []).append(problem.item_id or "")
    assert by_rule.keys() == {"repeated-option word", "repeated-question word", "encoding deed"}
    assert by_rule["repeated-option word"] == [f"recorded_debate_{n}" for n in (11, 20, 63, 206, 225, 229, 251, 261)]
    assert by_rule["encoding deed"] == ["evidence_sentences_45", "evidence_sentences_101", "evidence_sentences_101"]
    repeated = by_rule["repeated-question word"]
    assert len(repeated) == len(set(repeated)) == 18
    assert all(re.fullmatch(r"ecomics_\d+", item_id) for item_id in repeated)
    asked = {problem.message.partition(" asks the same")[0] for problem in report.problems if problem.rule == "repeated-question"}
    assert len(asked & set(repeated)) == len(asked)
    assert report.num_suspicious == 28
