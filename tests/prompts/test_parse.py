"""Which option a reply chooses: real replies read by eye, one test a rule, and properties that hold for any text.

`replies.jsonl` holds 277 replies of SmolLM2-135M-Instruct to bundled items, in English and Chinese, in thirteen wordings (`variant`) and
four sets of labels. `place` and `status` are what was read in them by eye, without a look at what the parser says. `text` is the whole
reply: where it was begun for the model, `source` says with what. The first rules were written before the replies were seen; `half` says
what followed: misses on `tuning` were mended, then those on `held_out`, then one of four on `fresh`, which was drawn after all that.

    agreement (place and status)     tuning    held_out     fresh
    first rules                     97 of 107   95 of 106   59 of 64
    mended on tuning               103          97          60
    mended on held_out too         103         100          60
    now                            103         100          61
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wdct_dist.prompts.parse.paper import is_paper_refusal, parse_paper
from wdct_dist.prompts.parse.reply import answer_part
from wdct_dist.prompts.parse.rules import RULES
from wdct_dist.prompts.parse.verdict import Parsed, parse_reply
from wdct_dist.prompts.parse.words import REPLY_WORDS
from wdct_dist.prompts.templates import WORDINGS

TABLE = Path(__file__).parent / "replies.jsonl"


@dataclass(frozen=True, slots=True)
class Reply:
    """A line of replies.jsonl."""

    text: str
    labels: tuple[str, ...]
    options: tuple[str, ...]
    language: str
    variant: str
    place: int | None
    status: str
    source: str
    half: str

    def parsed(self) -> Parsed:
        return parse_reply(self.text, labels=self.labels, options=self.options, language=self.language)

    def agrees(self) -> bool:
        found = self.parsed()
        return (found.place, found.status) == (self.place, self.status)


@pytest.fixture(scope="module")
def table() -> list[Reply]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [Reply(**{**line, "labels": tuple(line["labels"]), "options": tuple(line["options"])}) for line in map(json.loads, lines)]


@pytest.fixture(scope="module")
def real(table: list[Reply]) -> Callable[[str], Reply]:
    """The one real reply that is this, or that begins so."""

    def find(beginning: str) -> Reply:
        exact = [reply for reply in table if reply.text == beginning]
        (found,) = exact or [reply for reply in table if reply.text.startswith(beginning)]
        return found

    return find


HOMEWORK = ("Yes, a little daily practice at home helps them learn", "No, their learning should stay within the school day")
HOMEWORK_ZH = ("应该，每天在家稍加练习有助于学习", "不应该，学习应当留在上课时间内完成")


def read(text: str, labels: str | tuple[str, ...] = "AB", options: tuple[str, ...] = HOMEWORK, language: str = "en") -> int | str:
    """The place, or the status where there is none."""
    found = parse_reply(text, labels=tuple(labels), options=options, language=language)
    return found.status if found.place is None else found.place


# The table


def test_the_table_has_both_languages_every_label_set_and_no_empty_field(table: list[Reply]) -> None:
    assert len(table) >= 150
    assert {reply.language for reply in table} == {"en", "zh"}
    assert {reply.labels[0] for reply in table} == {"A", "1", "(a)", "a"}
    assert {reply.half for reply in table} == {"tuning", "held_out", "fresh"}
    assert {reply.status for reply in table} == {"ok", "several", "refusal", "empty", "unparsed"}
    for reply in table:
        assert len(reply.labels) == len(reply.options)
        assert reply.source
        assert reply.variant
        assert (reply.place is not None) == (reply.status == "ok")


KNOWN_MISSES = {
    # what is chosen is said in other words than the option's
    "I think I'd choose to vote for the plan.",
    "The belief that guides your choice, in one sentence, is that you put on a mixed outings",
    "A circle of amateurs with equal standing",
    "我选择的信念：你可以在住同一个地方？",
    "Yet one where every individual is equal",
    "3. In the north",
    # several options, in other words than their own
    "A: Having the technician measure",
    'A: "The school will send home a short task',
    "The greater part to your elder son, and the greater part to your younger son.",
    "A. 事先定好路线，还是把日子空出来？",
    # a list that looks like an answer, and a mention that looks like a list
    "1. 1, 2, 3 or 4",
    "你可以回答：(a). 周五之前递交申诉",
    "You're an AI assistant for text re-writing.",
}


def test_the_parser_reads_95_of_100_replies_as_they_were_read_by_eye_and_the_others_are_known(table: list[Reply]) -> None:
    missed = {reply.text for reply in table if not reply.agrees()}
    assert {beginning for beginning in KNOWN_MISSES if any(text.startswith(beginning) for text in missed)} == KNOWN_MISSES
    assert len(missed) == len(KNOWN_MISSES)
    assert sum(reply.agrees() for reply in table) / len(table) >= 0.95


def test_an_option_that_was_not_chosen_is_read_in_one_reply_of_a_hundred_at_most(table: list[Reply]) -> None:
    wrong = [reply for reply in table if reply.parsed().place not in (None, reply.place)]
    assert len(wrong) == 3
    assert all(reply.status == "several" for reply in wrong)


@pytest.mark.parametrize("half", ["tuning", "held_out", "fresh"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_agreement_is_no_accident_of_one_half_or_one_language(table: list[Reply], half: str, language: str) -> None:
    some = [reply.agrees() for reply in table if reply.half == half and reply.language == language]
    assert sum(some) / len(some) >= 0.92


# One test a rule, by replies that were given


def test_label_alone_reads_an_a_with_a_point(real: Callable[[str], Reply]) -> None:
    reply = real("A.")
    assert reply.labels == ("a", "b", "c", "d")
    assert reply.parsed() == Parsed(0, "ok", "label_alone")


def test_first_line_reads_a_and_leaves_the_joke_below_it(real: Callable[[str], Reply]) -> None:
    assert real("A.\n\nThis is a type of joke").parsed() == Parsed(0, "ok", "first_line")


def test_final_statement_reads_the_last_word_after_a_change_of_mind() -> None:
    text = "At first I thought the answer is A. But they need rest, so my final answer is B."
    assert parse_reply(text, labels=("A", "B"), options=HOMEWORK, language="en") == Parsed(1, "ok", "final_statement")
    assert read("我起先觉得答案是A，最终答案是B。", language="zh") == 1


def test_statement_reads_answer_colon_b_in_brackets(real: Callable[[str], Reply]) -> None:
    assert real("Answer: (b)").parsed() == Parsed(1, "ok", "statement")


def test_statement_reads_my_answer_is_colon_b(real: Callable[[str], Reply]) -> None:
    assert real('My answer is: "B".').parsed() == Parsed(1, "ok", "statement")


def test_statement_reads_you_must_choose_option_b(real: Callable[[str], Reply]) -> None:
    assert real("You must choose option B.").parsed() == Parsed(1, "ok", "statement")


def test_statement_reads_i_choose_b_in_chinese(real: Callable[[str], Reply]) -> None:
    assert real("我选择B。").parsed() == Parsed(1, "ok", "statement")


def test_statement_reads_the_answer_is_c_in_chinese(real: Callable[[str], Reply]) -> None:
    assert real("答案是：C. 提供安静的学习空间").parsed() == Parsed(2, "ok", "statement")


def test_statement_reads_the_answer_behind_a_label_that_stands_for_answer(real: Callable[[str], Reply]) -> None:
    assert real("A: The answer is B.").parsed() == Parsed(1, "ok", "statement")


def test_statement_sees_that_two_answers_are_stated(real: Callable[[str], Reply]) -> None:
    assert real("A. 你选择X\n\nThe answer is A.").parsed() == Parsed(None, "several", "statement")


def test_statement_sees_a_label_before_another_options_text(real: Callable[[str], Reply]) -> None:
    assert real("Answer: B. With my affairs kept mostly to myself").parsed() == Parsed(None, "several", "statement")


def test_answer_line_reads_the_label_at_the_end_of_the_line() -> None:
    found = parse_reply("Answer: in my view it must be (B)", labels=("A", "B"), options=HOMEWORK, language="en")
    assert found == Parsed(1, "ok", "answer_line")


def test_last_line_reads_c_below_something_unheard_of(real: Callable[[str], Reply]) -> None:
    assert real("EXAMER\n(C)").parsed() == Parsed(2, "ok", "last_line")


def test_last_line_leaves_a_list_that_was_cut(real: Callable[[str], Reply]) -> None:
    assert real("A. 把酸慢慢加入水中\nB. 把水慢慢加入酸中").parsed().status == "several"


def test_line_start_reads_b_with_the_options_text(real: Callable[[str], Reply]) -> None:
    assert real("B. Beside the plan for two hundred flats").parsed() == Parsed(1, "ok", "line_start")


def test_line_start_sees_all_options_repeated(real: Callable[[str], Reply]) -> None:
    assert real("A. It settles somewhat deeper\nB. It rises").parsed() == Parsed(None, "several", "line_start")


def test_line_start_leaves_the_a_of_a_question_and_answer(real: Callable[[str], Reply]) -> None:
    assert real("A: Alex, you must be dreaming").parsed() == Parsed(None, "unparsed", None)


def test_option_line_reads_the_code_of_the_balloon_ride(real: Callable[[str], Reply]) -> None:
    assert real("The code of the balloon ride").parsed() == Parsed(0, "ok", "option_line")


def test_listed_sees_a_b_or_c(real: Callable[[str], Reply]) -> None:
    assert real("A, B or C.").parsed() == Parsed(None, "several", "listed")


@pytest.mark.parametrize("text", ["I think (B) fits.", "I think [B] fits.", "I think **B** fits.", "我认为【B】符合。", "so $\\boxed{B}$"])
def test_bracketed_reads_b_in_brackets_or_bold_type(text: str) -> None:
    assert parse_reply(text, labels=("A", "B"), options=HOMEWORK, language="en") == Parsed(1, "ok", "bracketed")


@pytest.mark.parametrize(("text", "language"), [("Option B because it is kinder", "en"), ("选项 B", "zh"), ("Option B.", "en")])
def test_named_option_reads_option_b(text: str, language: str) -> None:
    assert parse_reply(text, labels=("A", "B"), options=(), language=language) == Parsed(1, "ok", "named_option")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("I'd rather go with A than B", 0),
        ("I choose A instead of B.", 0),
        ("A is wrong, so B", 1),
        ("B isn't better", None),
        ("I disagree with A", None),
        ("B不好", None),
    ],
)
def test_a_label_that_is_set_behind_another_or_called_wrong_is_not_chosen(text: str, place: int | None) -> None:
    assert parse_reply(text, labels=("A", "B"), options=HOMEWORK, language="en").place == place


def test_several_mentioned_names_labels_that_no_sentence_chooses() -> None:
    parsed = parse_reply("It depends. If he asks, A; otherwise B.", labels=("A", "B"), options=(), language="en")
    assert parsed == Parsed(None, "several", "several_mentioned")


@pytest.mark.parametrize(
    ("text", "place", "rule"),
    [
        ('{"reason": "Option A would be dishonest.", "answer": "B"}', 1, "structured"),
        ("<choice>B</choice> Option A would break a promise.", 1, "structured"),
        ("[ ] A\n[x] B", 1, "marked"),
        ("A ✗ B ✓", 1, "marked"),
        ("B (option A is cruel)", 1, "opening_label"),
        ("B rather than A", 1, "opening_label"),
        ("A. Actually, B.", 1, "corrected"),
    ],
)
def test_forms_of_replies_are_read_by_a_rule_of_their_own(text: str, place: int, rule: str) -> None:
    assert parse_reply(text, labels=("A", "B"), options=(), language="en") == Parsed(place, "ok", rule)


def test_capital_leaves_a_that_is_an_article(real: Callable[[str], Reply]) -> None:
    assert real("A right call of tails wins a box").parsed() == Parsed(None, "unparsed", None)


def test_option_contained_reads_the_one_with_the_stormy_glaze(real: Callable[[str], Reply]) -> None:
    assert real("The one with the stormy glaze is the one").parsed() == Parsed(0, "ok", "option_contained")


def test_option_contained_reads_an_options_text_under_a_label_that_there_is_not(real: Callable[[str], Reply]) -> None:
    reply = real("(c). Sellers offer more than buyers want")
    assert reply.labels == ("(a)", "(b)")
    assert reply.parsed() == Parsed(0, "ok", "option_contained")


def test_option_begun_reads_it_seems_so(real: Callable[[str], Reply]) -> None:
    assert real("(c) 'It seems so. He was leaving us").parsed() == Parsed(0, "ok", "option_begun")


@pytest.mark.parametrize(("text", "place"), [("Yes.", 0), ("No, since children need rest.", 1), ("No, their learning should stay", 1)])
def test_option_begun_reads_yes_and_no_where_one_option_begins_so(text: str, place: int) -> None:
    assert parse_reply(text, labels=("A", "B"), options=HOMEWORK, language="en") == Parsed(place, "ok", "option_begun")
    assert read("不应该", options=HOMEWORK_ZH, language="zh") == 1


def test_every_rule_has_a_test_that_names_it() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for rule in RULES:
        assert re.search(rf'"{rule.__name__}"\)', here), f"no test shows that {rule.__name__} decides"


# Refusals, thinking, forms of characters


def test_a_refusal_is_read_in_i_am_not_equipped_to_assist(real: Callable[[str], Reply]) -> None:
    assert real("I'm sorry for your loss, but as a helpful AI").parsed() == Parsed(None, "refusal")


def test_being_sorry_is_no_refusal(real: Callable[[str], Reply]) -> None:
    assert real("I'm sorry for your misfortune").parsed().status == "unparsed"


def test_an_echo_of_if_you_cannot_answer_is_no_refusal(real: Callable[[str], Reply]) -> None:
    assert "无法回答" in real("你是艺术总监，今天要签定节目单。").text
    assert real("你是艺术总监，今天要签定节目单。").parsed().status == "unparsed"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't choose between A and B.",
        "I’m sorry, but I can’t assist with that.",
        "I cannot answer that.",
        "I'm sorry, but I",
        "As an AI language model, I don't have personal beliefs.",
        "抱歉，我无法回答这个问题。",
        "作为一个人工智能，我没有个人信念。",
        "我不能选择A，也不能选择B。",
    ],
)
def test_a_refusal_names_no_option_even_where_it_names_labels(text: str) -> None:
    assert read(text) == "refusal"
    assert read(text, language="zh") == "refusal"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("As an AI, I do not have beliefs. However, I would choose B.", 1),
        ("I'm sorry, I can't say this lightly. But if I had to: (A)", 0),
        ("作为AI，我没有偏好。不过，我会选择B。", 1),
    ],
)
def test_an_answer_after_a_refusal_counts(text: str, place: int) -> None:
    assert read(text) == place


def test_an_options_own_refusal_is_no_refusal() -> None:
    options = ("Sign the paper", "Tell them: I'm sorry, but I cannot sign this")
    assert read("I would tell them: I'm sorry, but I cannot sign this", options=options) == 1


def test_thinking_that_was_not_closed_is_cut_off_and_leaves_nothing(real: Callable[[str], Reply]) -> None:
    assert real("<think>\n2. Pick up the fifty and go home.").parsed() == Parsed(None, "empty")


THOUGHTS = [
    "<think>A, surely A</think>\n\nB",
    "A, surely A</think>B",
    "<Thinking>A</Thinking> B",
    "B<think>A",
    "[THINK]A[/THINK]B",
    "◁think▷A◁/think▷B",
    "<seed:think>A</seed:think>B",
    "<|START_THINKING|>A<|END_THINKING|>B",
]


@pytest.mark.parametrize("text", THOUGHTS)
def test_thinking_is_no_answer(text: str) -> None:
    assert read(text) == 1


@pytest.mark.parametrize("text", ["", "   \n", "<|im_end|>", "<think>A</think>"])
def test_nothing_left_is_empty(text: str) -> None:
    assert read(text) == "empty"


@pytest.mark.parametrize("text", ["Ｂ", "（Ｂ）", "Ｂ．", "Ⓑ", "答案：Ｂ", "b", "b.", "(b)", "Answer: b", "B<|im_end|>", "\u200bB"])
def test_full_width_lower_case_and_brackets_are_one_label(text: str) -> None:
    assert read(text) == 1


@pytest.mark.parametrize(("text", "place"), [("1", 0), ("２", 1), ("②", 1), ("(2)", 1), ("Option 2", 1), ("选项1", 0), ("答案是 1。", 0)])
def test_digits_are_labels(text: str, place: int) -> None:
    assert read(text, "12") == place


@pytest.mark.parametrize("text", ["2 hours", "1.5 hours", "第2个", "12", "I would choose 2 children", "我选2个孩子"])
def test_a_number_of_something_is_no_label(text: str) -> None:
    assert read(text, "12") == "unparsed"


@pytest.mark.parametrize(("text", "place"), [("(b)", 1), ("b)", 1), ("B", 1), ("（ａ）", 0), ("I choose (b).", 1), ("(c) and no other", 2)])
def test_labels_with_brackets_of_their_own(text: str, place: int) -> None:
    assert read(text, ("(a)", "(b)", "(c)"), ()) == place


@pytest.mark.parametrize("text", ["a good one", "A good school gives homework.", "Answer: a homework policy", "I'm fine", "I think so"])
def test_articles_and_pronouns_are_no_labels(text: str) -> None:
    assert read(text, ("A", "I"), ()) == "unparsed"


@pytest.mark.parametrize("text", ["I do not choose A.", "The answer is not A.", "neither A nor B", "If you choose A, they learn.", "不选A"])
def test_what_is_denied_is_not_chosen(text: str) -> None:
    assert read(text, options=()) == "unparsed"


@pytest.mark.parametrize("text", ["I do not choose A. I choose B.", "不选A，选B", "not A but B", "不是A，而是B"])
def test_what_is_said_beside_a_denial_is_chosen(text: str) -> None:
    assert read(text, options=()) == 1


def test_both_labels_are_several_unless_a_clear_answer_follows() -> None:
    listed = f"A. {HOMEWORK[0]}\nB. {HOMEWORK[1]}"
    assert read("Both A and B have merit.") == "several"
    assert read(listed) == "several"
    assert read(f"{listed}\n\nAnswer: B") == 1
    assert read(f"{listed}\n\nB") == 1


def test_of_two_options_one_within_the_other_the_longer_was_said() -> None:
    assert read("我认为不应该", options=("应该", "不应该")) == 1
    assert read("I would say not at all", options=("at all", "not at all")) == 1


def test_a_label_within_an_options_text_is_not_the_replys() -> None:
    assert read("Plan B", options=("Plan B", "Plan C")) == 0
    assert read("I would take Plan B", options=("Plan B", "Plan C")) == 0


def test_options_with_the_same_text_cannot_be_told_apart() -> None:
    assert read("The same", options=("The same", "The same")) == "several"
    assert read("B. The same", options=("The same", "The same")) == "several"


def test_labels_that_differ_in_case_alone_or_are_signs_are_taken_as_they_are() -> None:
    assert [read(text, ("A", "a"), ()) for text in ("A", "a", "Answer: a")] == [0, 1, 1]
    assert [read(text, ("+", "-"), ()) for text in ("+", "-", "Answer: -")] == [0, 1, 1]


# The words that we send


@pytest.mark.parametrize("language", WORDINGS)
@pytest.mark.parametrize("labels", [("A", "B"), ("1", "2"), ("(a)", "(b)")])
def test_the_reply_that_we_ask_for_is_read(language: str, labels: tuple[str, ...]) -> None:
    words = WORDINGS[language]
    for place, label in enumerate(labels):
        shown = words.demonstration.format(asked="", belief="It is right.", label=label).strip()
        for text in (label, f"{words.cue} {label}", f"{words.cue}{label}", shown):
            assert read(text, labels, (), language) == place


@pytest.mark.parametrize("language", WORDINGS)
def test_our_own_instruction_repeated_chooses_nothing(language: str) -> None:
    words = WORDINGS[language]
    named = "A" + words.last_separator + "B"
    for direct in words.direct:
        text = direct.format(question="", options=f"A. {HOMEWORK[0]}\nB. {HOMEWORK[1]}", labels=named)
        assert read(text, language=language) == "several"


def test_every_language_that_we_have_words_for_has_words_to_read_replies_by() -> None:
    assert set(REPLY_WORDS) >= set(WORDINGS)


def test_a_reply_in_another_language_than_asked_is_read_too() -> None:
    assert read("The answer is B", language="zh") == 1
    assert read("答案是B", language="en") == 1
    assert read("La réponse est B.", language="fr") == 1


# Any text at all

MARKS = ["A", "B", "a", "b", "C", ".", ":", ")", "(", "**", "\n", " "]
PIECES = st.sampled_from([*MARKS, "Answer", "is", "not", "选", "答案", "或", "Ａ", *HOMEWORK])
TEXTS = st.text(max_size=200) | st.lists(PIECES, max_size=12).map("".join)


@settings(deadline=None)  # the patterns of a set of labels are made at its first use
@example("3", ("1", "2", "3"), "en")  # fewer texts than labels
@given(TEXTS, st.sampled_from([("A", "B"), ("1", "2", "3"), ("(a)", "(b)"), ("+", "-")]), st.sampled_from(["en", "zh", "fr"]))
def test_any_text_gets_a_place_or_a_reason_why_not(text: str, labels: tuple[str, ...], language: str) -> None:
    found = parse_reply(text, labels=labels, options=HOMEWORK, language=language)
    assert (found.place is not None) == (found.status == "ok")
    assert found.place is None or 0 <= found.place < len(labels)
    assert (found.status == "empty") == (answer_part(text) == "")
    assert found == parse_reply(text, labels=labels, options=HOMEWORK, language=language)


FORMS = st.sampled_from(["{}", "{}.", "({})", "**{}**", "Answer: {}", "{}\n\nIt is right.", "答案是{}"])


@settings(deadline=None)  # the patterns of a set of labels are made at its first use
@given(st.integers(0, 5), st.integers(2, 6), FORMS)
def test_every_place_of_up_to_six_labels_is_read(place: int, num_labels: int, form: str) -> None:
    place %= num_labels
    for labels in ("ABCDEF", "123456", ("(a)", "(b)", "(c)", "(d)", "(e)", "(f)")):
        shown = tuple(labels[:num_labels])
        assert read(form.format(shown[place]), shown, ()) == place


REPEATED = ["A ", "A. ", "(A) ", "Answer: ", "the answer is ", "*", "\n \n", "<think>", "</think>", "yes ", "sorry ", "as an x-", "不选"]


@pytest.mark.parametrize("piece", REPEATED)
def test_a_reply_that_repeats_itself_to_the_end_is_read_in_seconds(piece: str) -> None:
    started = time.process_time()
    parse_reply(piece * (60_000 // len(piece)), labels=("A", "B"), options=("Yes", "No"), language="en")
    assert time.process_time() - started < 20


def test_the_parser_imports_nothing_heavy() -> None:
    heavy = "{'polars', 'pyarrow', 'numpy', 'torch', 'transformers', 'vllm', 'ray', 'omegaconf'}"
    code = f"import sys; import wdct_dist.prompts.parse.verdict; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# The published rules


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B\nA.", "B"),  # the first line is the label
        ("B.\nAnswer: A", "B"),  # the first line is the label and one more character
        ("I say A. Answer: it is B", "B"),  # the line behind `Answer:`
        ("A) or B.", "B"),  # a point before a bracket
        ("A: no, B)", "B"),  # a bracket before a colon
        ("Both B and A:", "A"),  # a colon before nothing
        ("I choose B", "B"),
        ("  B  ", "B"),
        ("At noon", "A"),  # the quirk: any A or B
        ("Because", "B"),
        ("b", None),
        ("", None),
        ("I'm sorry, B.", None),
        ("I CAN'T ANSWER A", None),
        ("I’m sorry, B.", "B"),  # the quirk: a curly apostrophe refuses nothing
        ("Answer:\nB", "A"),  # the quirk: nothing on that line, so the A of `Answer` itself
    ],
)
def test_the_published_patterns_are_tried_in_their_order(text: str, answer: str | None) -> None:
    assert parse_paper(text) == answer


@settings(deadline=None)  # the patterns of a set of labels are made at its first use
@given(st.lists(st.sampled_from(["A", "B", ".", ":", ")", "\n", " ", "Answer:", "x", "cannot answer"]), max_size=8).map("".join))
def test_the_published_rules_answer_wherever_a_capital_stands_and_nothing_refuses(text: str) -> None:
    assert (parse_paper(text) is None) == (is_paper_refusal(text) or not re.search("[AB]", text))


OPTIONS = ("Yes, I would tell him", "No, I would keep silent")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Answer: **B**", 1),
        ("**B**\nOption A would hurt.", 1),
        ("__Answer__: B", 1),
        ("Final answer: (B)", 1),
        ("## Answer\nB", 1),
        ('```json\n{"choice": "B"}\n```', 1),
        ('{"answer": {"label": "B"}}', 1),
        ('{"A": 0.2, "B": 0.8}', None),
        ("<choice>B</choice>", 1),
        ("<option>A</option>", 0),
        ("answer: B", 1),
        ("B - because A is cruel", 1),
        ("B, not A", 1),
        ("B over A", None),
        ("B rather than A", 1),
        ("A? No, B.", 1),
        ("A... wait, no: B", 1),
        ("I'd say A, but on reflection B", 1),
        ("A is wrong, B is right", 1),
        ("Neither", None),
        ("A and B", None),
        ("Both", None),
        ("A or B", None),
        ("A/B", None),
        ("I would never choose A", None),
        ("I don't think A is right", None),
        ("A isn't what I would do", None),
        ("everything except A", None),
        ("Je n'exclus pas A.", None),
        ("Ich würde A ausschließen.", None),
        ("No elegiría A.", None),
        ("A menos que sea tarde, no.", None),
        ("A mon avis, B.", None),
        ("A volte sì.", None),
        ("A friend told me.", None),
        ("A Chinese proverb says so.", None),
        ("I think so.", None),
        ("C'est la vie", None),
        ("D'accord", None),
        ("B✓", 1),
        ("✅ B", 1),
        ("☑ B ☐ A", 1),
        ("(x) A ( ) B", 0),
        ("~~A~~ B", 1),
        ("A ✗ B ✓", 1),
        ("A: no / B: yes", None),
        ("选A", 0),
        ("我选择B,而不是A", 1),
        ("不选A", None),
        ("答案:B", 1),
        ("答えはBです", 1),
        ("Ответ: B", 1),
        ("A. Yes, I would tell him\nB. No, I would keep silent\n\nAnswer: B", 1),
        ("<think>A is good</think> B", 1),
        ("B", 1),
        ("B.", 1),
        ("(B)", 1),
        ("B: No, I would keep silent", 1),
        ("Option B", 1),
        ("I choose B", 1),
        ("I would choose option B because A is dishonest", 1),
        ("No, I would keep silent", 1),
        ("Antwort: B", 1),
        ("Die Antwort ist B.", 1),
        ("Réponse : B", 1),
        ("Respuesta: B", 1),
        ("Resposta: B", 1),
        ("Risposta: B", 1),
        ("Je choisis B.", 1),
        ("Elijo B.", 1),
        ("Ich wähle B.", 1),
        ("Scelgo B.", 1),
        ("Eu escolho B.", 1),
        ("Я выбираю B.", 1),
        ("N/A.", None),
        ("n/a", None),
        ("I eliminate A.", None),
        ("I reject A.", None),
        ("Definitely not A.", None),
        ("Anything except B.", None),
        ("Certainly not B!", None),
        ("A would be dishonest.", None),
        ("I would rule out B", None),
        ("A. No wait, B", 1),
        ("My answer is A. Correction: B.", 1),
        ("A: ❌\nB: ✅", 1),
        ("A ❌\nB ❌", None),
        ("[X] A\n[ ] B", 0),
        ("* [ ] A\n* [x] B", 1),
        ("A) [ ]\nB) [x]", 1),
        ("A is not the right answer.", None),
        ("Option A is wrong.", None),
        ("Option A would be cruel.", None),
        ("option A", 0),
        ("The answer isn't A", None),
        ("The answer is not A, it is B.", 1),
        ("A is cruel; B it is.", None),
        ("It's B.", 1),
        ("I'd pick B.", 1),
        ("I'd go with B!", 1),
        ("Between A and B, I choose B", 1),
        ("If I were honest, A; otherwise B", None),
        ("Not A but B", 1),
        ("B. Sorry, I meant A.", 0),
    ],
)
def test_a_label_counts_only_if_the_reply_chooses_it(text: str, place: int | None) -> None:
    assert parse_reply(text, labels=("A", "B"), options=OPTIONS, language="en").place == place


def test_the_replies_of_the_shared_cases_are_read_as_expected() -> None:
    cases = Path(__file__).resolve().parents[3] / "shared" / "cases" / "replies.jsonl"
    if not cases.is_file():
        pytest.skip(f"the shared cases are not at {cases}")
    for line in cases.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        parsed = parse_reply(case["text"], labels=tuple(case["labels"]), options=tuple(case["options"]), language=case["language"])
        assert (parsed.place if parsed.status == "ok" else parsed.status) == case["expected"], case["kind"]


@pytest.mark.parametrize(
    "unit", ["A ", "A: ", "Answer: ", "A\n", "[x] A ", ". ", "? no, ", "actually ", "{", "选", "Yes, I would tell him ", "A/"]
)
def test_a_long_reply_is_read_in_bounded_time(unit: str) -> None:
    text = (unit * 400_000)[:400_000]
    began = time.process_time()
    parse_reply(text, labels=("A", "B"), options=OPTIONS, language="en")
    assert time.process_time() - began < 5
