from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import SkipTally
from wdct_dist.prompts.types import ANSWER_SLOT, Prompt
from wdct_dist.prompts.variants.joint import before_orders


@pytest.mark.parametrize(("variant", "first"), [("joint", "word"), ("joint-reverse", "deed")])
def test_the_first_side_is_asked_as_direct_asks_it(
    variant: str, first: str, prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    settings = ("prompt.system=Be brief.", "prompt.answer_prefix='Answer:'", f"variants=[direct,{variant}]")
    prompts = [prompt for prompt in prompts_of([make_item(num_options=3)], *settings) if prompt.side == first]
    direct, joint = ([p.messages for p in prompts if p.variant == name] for name in ("direct", variant))
    assert direct == joint


def test_the_second_side_is_asked_behind_the_first_and_the_answer_to_it(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    settings = ("prompt.system=Be brief.", "prompt.answer_prefix='Answer:'", "variants=[joint]")
    prompts = prompts_of([make_item()], *settings)
    said = {prompt.messages for prompt in prompts if prompt.side == "word"}
    for prompt in (prompt for prompt in prompts if prompt.side == "deed"):
        assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user", "assistant"]
        assert prompt.messages[2].content == ANSWER_SLOT
        assert "What is done" in prompt.messages[3].content
        # what the engine answers first: the messages before the slot, and the beginning of the reply
        assert (*prompt.messages[:2], prompt.messages[4]) in said


@pytest.mark.parametrize("num_options", [2, 3, 4])
def test_a_model_that_repeats_its_label_agrees_with_itself_one_time_in_k(
    num_options: int, prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    prompts = prompts_of([make_item(num_options=num_options)], "variants=[joint]")
    shown_first = Counter()
    for prompt in (prompt for prompt in prompts if prompt.side == "deed"):
        lines = prompt.messages[0].content.splitlines()[-num_options:]
        for place, line in enumerate(lines):
            shown_first[line.endswith(str(prompt.permutation[place]))] += 1
    assert shown_first[True] * num_options == shown_first.total()
    assert shown_first.total() == num_options**3  # k labels in k × k conversations


def test_all_orders_of_one_side_meet_k_of_the_other(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    prompts = prompts_of([make_item(num_options=4)], "variants=[joint]", "orders=all")
    assert Counter(prompt.side for prompt in prompts) == {"word": 24, "deed": 24 * 4}
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)


def test_orders_that_are_no_rotations_of_each_other_are_still_paired() -> None:
    assert before_orders(((0, 1, 2),), (0, 2, 1)) == ((0, 1, 2),)


def test_an_item_with_one_translated_side_is_left_out_in_that_language(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    item = make_item(translations={"zh": {"deed": Question("怎么办？", ("做", "不做"))}})
    skipped = SkipTally()
    prompts = prompts_of([item], "variants=[joint]", "data.languages=[en,zh]", skipped=skipped)
    assert {prompt.language for prompt in prompts} == {"en"}
    assert skipped.lines() == ["joint: 1 items left out: one side has no text in zh"]


def test_both_turns_are_in_one_language(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    deeds = [prompt for prompt in prompts_of(bundled[:1], "variants=[joint]", "data.languages=[zh]") if prompt.side == "deed"]
    assert all("请只回答" in prompt.messages[0].content and "请只回答" in prompt.messages[2].content for prompt in deeds)


def test_options_that_say_the_same_make_one_conversation_of_two_orders(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    same = Question("What is right?", ("Help them.", "Help them."))  # as in a few of the published items
    one = make_item()
    prompts = prompts_of([replace(one, questions={**one.questions, "word": same})], "variants=[joint]")
    assert Counter(prompt.side for prompt in prompts) == {"word": 2, "deed": 2}
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
