from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from wdct_dist.config.schema import Config
from wdct_dist.errors import DataError
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.paraphrase import (
    Paraphrases,
    Written,
    check_prompts,
    checked,
    paraphrase_number,
    paraphrase_prompts,
    read_paraphrase,
    read_reply,
    to_line,
)

ORIGINAL = Question(
    "Should pupils be given homework on school days?",
    ("Yes, daily practice at home helps them learn", "No, their learning should stay within the school day"),
)
GOOD = (
    "Question: Is it right to set homework during the week?\n"
    "A. It is, since practising at home supports learning\n"
    "B. It is not, since learning belongs in school"
)
AB = ("A", "B")


def test_a_reply_in_the_form_asked_for_is_read() -> None:
    assert read_paraphrase(GOOD, ORIGINAL, AB) == Question(
        "Is it right to set homework during the week?",
        ("It is, since practising at home supports learning", "It is not, since learning belongs in school"),
    )


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>A. first\nB. second</think>\n\n{GOOD}",
        GOOD.replace("A. ", "A) ").replace("B. ", "B) "),
        GOOD.replace("A. ", "(A) ").replace("B. ", "(B): "),
        GOOD.replace("Question:", "**Question:**").replace("A. ", "**A.** ").replace("B. ", "**B.** "),
        GOOD.replace("\nA.", "\n\nA.").replace("\nB.", "\n\nB."),
        f"{GOOD}\n\nI hope this keeps the meaning!",
        GOOD.removeprefix("Question: "),
        GOOD.replace("\nA.", "\n\nOptions:\nA."),
    ],
)
def test_the_small_liberties_that_models_take_are_read_alike(reply: str) -> None:
    assert read_paraphrase(reply, ORIGINAL, AB) == read_paraphrase(GOOD, ORIGINAL, AB)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "it has no options"),
        ("I cannot help with that.", "it has no options"),
        ("<think>Let me see", "the thinking was not finished"),
        ("A. one way\nB. another way", "it has no question"),
        ("Question: Homework, is it right?\nA. It helps", "its labels are A"),
        ("Question: Homework, is it right?\nB. It harms\nA. It helps", "its labels are B, A"),
        ("Question: Homework, is it right?\nA. It helps\nB. It harms\nC. Both", "its labels are A, B, C"),
        (f"{GOOD}\n{GOOD}", "its labels are A, B, A, B"),
        ("Question: Homework, is it right?\nA. It helps\nB.", "option B is empty"),
        ("Question: Homework, is it right?\nA. It helps\nB. it helps!", "two of its options are the same"),
        ("Question: Homework, is it right?\nA. It helps\nbecause of\npractice\nB. It harms", "there is text between its options"),
        ("Question: Homework, is it right?\nA. It helps\nB. It harms\nbecause of rest", "its last option goes on over several lines"),
        (
            "Question: Homework, is it right?\nA. No, their learning should stay within the school day.\nB. Yes, of course",
            "its option A is the original's B",
        ),
        (
            "Question: Homework, is it right?\nA. No, learning should stay in the school day\nB. Yes, practice at home helps them to learn",
            "its options A and B look swapped",
        ),
        (f"{ORIGINAL.question}\nA. {ORIGINAL.options[0]}\nB. {ORIGINAL.options[1]}", "it has the very words of the original"),
        # as a model of 135 million parameters wrote
        (
            f"Question: {ORIGINAL.question}\nA. Yes, their learning should stay within the school day\n"
            "B. No, their learning should stay within the school day",
            "its options A and B are nearly the same",
        ),
        (
            "Question: Where would you rather have them practise, at home or in school?\nA. At home, because they can't afford to miss it\n"
            "B. In school, because they can't afford to miss it",
            "its options A and B are nearly the same",
        ),
        ("Question: And you?\nA. It helps\nB. It harms", "its question lost most of the text"),
        ("问题：平时要留作业吗？\nA. 要，在家练习有好处\nB. 不要，学习应留在学校", "it is in another script"),
    ],
)
def test_what_is_doubtful_is_refused_with_the_reason(reply: str, why: str) -> None:
    assert read_paraphrase(reply, ORIGINAL, AB) == why


def test_chinese_is_read_alike() -> None:
    original = Question("平时上学的日子里，应该布置作业吗？", ("应该，在家练习有助于学习", "不应该，学习应当留在学校"))
    reply = "问题：上学的日子里留作业合适吗？\nA、合适，在家多练练学得更好\nB、不合适，学习是学校里的事"
    assert read_paraphrase(reply, original, AB) == Question(
        "上学的日子里留作业合适吗？", ("合适，在家多练练学得更好", "不合适，学习是学校里的事")
    )


def test_only_what_an_item_lacks_is_asked_for(configure: Callable[..., Config], make_item: Callable[..., Item]) -> None:
    item = make_item(
        paraphrases={"word": (ORIGINAL,)},
        translations={"zh": {side: Question(f"{side}问？", ("甲", "乙")) for side in ("word", "deed")}, "de": {"word": ORIGINAL}},
    )
    config = configure("augment.paraphrases=[0,1,3]", "augment.paraphraser=writer", "data.languages=[en,zh,de]")
    prompts = list(paraphrase_prompts([item], config))
    assert [(p.language, p.side, paraphrase_number(p)) for p in prompts] == [
        ("en", "word", 3),
        ("en", "deed", 1),
        ("en", "deed", 3),
        ("zh", "word", 1),
        ("zh", "word", 3),
        ("zh", "deed", 1),
        ("zh", "deed", 3),
    ]
    assert len({prompt.messages for prompt in prompts}) == len(prompts)
    assert {prompt.reply_tokens for prompt in prompts} == {config.sampling.max_new_tokens}
    assert "A. do one 0\nB. do one 1" in prompts[1].messages[0].content
    assert "请" in prompts[3].messages[0].content


def test_a_long_question_has_room_for_its_like(configure: Callable[..., Config], make_item: Callable[..., Item]) -> None:
    long = replace(make_item(), questions={"word": Question("Why? " * 400, ("one", "two")), "deed": ORIGINAL})
    config = configure("augment.paraphrases=[1]", "augment.paraphraser=writer")
    assert [prompt.reply_tokens for prompt in paraphrase_prompts([long], config)] == [1003, config.sampling.max_new_tokens]


def written_of(config: Config, item: Item, reply: str) -> Written:
    prompt = next(iter(paraphrase_prompts([item], config)))
    return read_reply(prompt, reply, item.questions[prompt.side])


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure("augment.paraphrases=[1]", "augment.paraphraser=writer")


@pytest.fixture
def item(make_item: Callable[..., Item]) -> Item:
    return replace(make_item(), questions={"word": ORIGINAL, "deed": ORIGINAL})


def test_the_model_is_asked_which_option_each_new_one_is(config: Config, item: Item) -> None:
    written = written_of(config, item, GOOD)
    prompts = check_prompts(written, ORIGINAL, item.domain, config)
    assert [prompt.permutation for prompt in prompts] == [(0, 1), (1, 0)] * 3
    assert written.question is not None
    for prompt, option in zip(prompts[:4], (0, 0, 1, 1), strict=True):
        assert written.question.options[option] in prompt.messages[0].content
        assert f"{prompt.labels[prompt.permutation.index(1)]}. {ORIGINAL.options[1]}" in prompt.messages[0].content
    for prompt in prompts[4:]:
        assert ORIGINAL.question in prompt.messages[0].content
        assert written.question.question in prompt.messages[0].content
        assert f"{prompt.labels[prompt.permutation.index(0)]}. Yes, they ask the same" in prompt.messages[0].content
    assert len({prompt.prompt_id for prompt in prompts}) == 6


FIRST, SECOND, EVEN = (-0.1, -3.0), (-3.0, -0.1), (-0.7, -0.7)


@pytest.mark.parametrize(
    ("read", "kept"),
    [
        ([FIRST, FIRST, SECOND, SECOND], True),
        ([FIRST, None, SECOND, SECOND], True),
        ([FIRST, EVEN, SECOND, EVEN], True),
        ([SECOND, SECOND, FIRST, FIRST], False),
        ([FIRST, FIRST, FIRST, FIRST], False),
        ([(-0.6, -0.8), (-0.6, -0.8), SECOND, SECOND], False),
        ([FIRST, FIRST, EVEN, EVEN], False),
        ([FIRST, FIRST, None, None], False),
        ([FIRST, SECOND, SECOND, SECOND], False),
    ],
)
def test_an_option_that_is_read_as_another_one_is_refused(
    read: list[tuple[float, float] | None], kept: bool, config: Config, item: Item
) -> None:
    result = checked(written_of(config, item, GOOD), ORIGINAL, [*read, FIRST, FIRST])
    assert (result.question is not None) is kept
    assert (result.refused is None) is kept
    assert result.reply == GOOD


@pytest.mark.parametrize(
    ("said", "kept"), [((FIRST, FIRST), True), ((FIRST, EVEN), True), ((SECOND, SECOND), False), ((None, None), False)]
)
def test_a_question_that_is_read_as_another_one_is_refused(
    said: tuple[tuple[float, float] | None, ...], kept: bool, config: Config, item: Item
) -> None:
    result = checked(written_of(config, item, GOOD), ORIGINAL, [FIRST, FIRST, SECOND, SECOND, *said])
    assert result.refused == (None if kept else "its question was not clearly read as the same")


def test_what_is_refused_already_is_not_checked(config: Config, item: Item) -> None:
    refused = written_of(config, item, "No.")
    assert check_prompts(refused, ORIGINAL, item.domain, config) == []
    assert checked(refused, ORIGINAL, []) == refused


def test_they_are_kept_line_by_line_with_what_was_refused(config: Config, item: Item) -> None:
    written = [
        written_of(config, item, GOOD),
        replace(written_of(config, item, GOOD), side="deed", number=2),
        replace(written_of(config, item, "No.\n第二行"), side="deed"),
    ]
    lines = [to_line(one) for one in written]
    assert all(line.count("\n") == 1 for line in lines)
    found = Paraphrases.from_lines(lines)
    assert found.of("one", "word", "en") == {1: written[0].question}
    assert found.of("one", "deed", "en") == {2: written[1].question}
    assert found.of("two", "deed", "en") == {}
    assert found.refused == {"it has no options": 1}
    assert found.lines() == ["paraphrases: 2 of 3 that the paraphraser wrote are kept", "paraphrases: 1 refused: it has no options"]


def test_the_most_frequent_reasons_are_said_and_the_others_counted() -> None:
    refused = {f"reason {number}": 10 - number for number in range(7)}
    said = Paraphrases({}, refused).lines()
    assert said[0] == "paraphrases: 0 of 49 that the paraphraser wrote are kept"
    assert said[1] == "paraphrases: 10 refused: reason 0"
    assert said[-1] == "paraphrases: 9 refused for other reasons; paraphrases.jsonl has them all"


@pytest.mark.parametrize("line", ["{", "[]", '{"item_id": "one"}', '{"item_id": "one", "side": "talk", "language": "en"}'])
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"paraphrases\.jsonl, line 2"):
        Paraphrases.from_lines(["\n", line])


def test_mean_probabilities_do_not_overflow(config: Config, item: Item) -> None:
    far = (-1000.0, -2000.0)
    assert checked(written_of(config, item, GOOD), ORIGINAL, [far, far, far[::-1], far[::-1], far, far]).question is not None
    assert math.exp(-1000.0) == 0.0
