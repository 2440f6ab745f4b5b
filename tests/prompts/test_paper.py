"""The published protocol: its draws, its text, its two options. The expectations are worked out here from the raw CSV."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

from wdct_dist.config.schema import Config
from wdct_dist.items.selection import select_items
from wdct_dist.items.types import Item
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt

PUBLISHED = 'Answer the following question with only one single option number (like "A" or "B") without explanation.\n%s\nAnswer:'


def swapped(question: str) -> str:
    """The published exchange of the last two lines of a question's text."""
    *stem, first, second = question.split("\n")
    return "\n".join([*stem, f"A. {second[2:].strip()}", f"B. {first[2:].strip()}"])


def test_orders_and_texts_on_the_published_items(wdct_csv: Path, configure: Callable[..., Config]) -> None:
    config = configure("protocol=paper", f"data.path={wdct_csv}")
    skipped = SkipTally()
    items = select_items(config.data)
    prompts = {(prompt.item_id, prompt.side): prompt for prompt in build_prompts(items, config, skipped=skipped)}
    with wdct_csv.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    generator = random.Random(42)
    num_swapped, same, spaced, other = {"word": 0, "deed": 0}, 0, 0, []
    for side, column in (("word", "speak"), ("deed", "act")):
        for row in rows:
            swap = generator.random() < 0.5
            prompt = prompts.get((row["id"], side))  # type: ignore[arg-type]
            if prompt is None:
                continue
            num_swapped[side] += swap
            assert prompt.permutation == ((1, 0) if swap else (0, 1))
            published = PUBLISHED % (swapped(row[column]) if swap else row[column])
            text = prompt.messages[0].content
            same += text == published
            spaced += text != published and bare(text) == bare(published)
            if bare(text) != bare(published):
                other.append(row["id"])
    assert len(prompts) == 2 * 1211
    assert num_swapped == {"word": 588, "deed": 597}
    assert (same, spaced, other) == (2343, 78, ["ecomics_50"])
    assert skipped.items == {("paper", "orders: paper draws for two options"): 14}


def bare(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_a_choice_of_items_keeps_the_draws_of_the_whole_file(wdct_csv: Path, configure: Callable[..., Config]) -> None:
    def permutations(*overrides: str) -> dict[tuple[str, str], tuple[int, ...]]:
        config = configure("protocol=paper", f"data.path={wdct_csv}", *overrides)
        return {(prompt.item_id, prompt.side): prompt.permutation for prompt in build_prompts(select_items(config.data), config)}

    every = permutations()
    theory = permutations("data.domains=[Theory]")
    first = permutations("data.limit=50")
    assert len(theory) == 202
    assert len(first) == 100
    assert theory.items() | first.items() <= every.items()


def test_the_prompt_says_how_engines_are_to_take_it(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    prompt = prompts_of([make_item()], "protocol=paper")[0]
    assert prompt.mode == "score"
    assert prompt.reply_tokens == 10
    assert prompt.plain_cue == ""
    assert prompt.messages[-1].role == "user"
    assert prompt.messages[-1].content.endswith("\nAnswer:")


def test_items_of_more_options_are_left_out_and_counted(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    items = [make_item("one"), make_item("two", 3), make_item("three", 4), make_item("four")]
    skipped = SkipTally()
    prompts = prompts_of(items, "protocol=paper", skipped=skipped)
    assert [prompt.item_id for prompt in prompts] == ["one", "one", "four", "four"]
    assert skipped.lines() == ["paper: 2 items left out: orders: paper draws for two options"]


def test_under_other_orders_the_text_stays_and_both_orders_are_asked(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    skipped = SkipTally()
    prompts = prompts_of([make_item("one"), make_item("two", 3)], "protocol=paper", "orders=rotations", skipped=skipped)
    assert [(prompt.side, prompt.permutation) for prompt in prompts] == [
        ("word", (0, 1)),
        ("word", (1, 0)),
        ("deed", (0, 1)),
        ("deed", (1, 0)),
    ]
    assert skipped.lines() == ["paper: 1 items left out: the published protocol has two options"]


def test_the_settings_of_the_user_come_over_those_of_the_protocol(configure: Callable[..., Config]) -> None:
    config = configure("protocol=paper", "trials=5", "prompt.reply_tokens=3", "variants=[paper,direct]")
    assert (config.trials, config.prompt.reply_tokens, config.variants) == (5, 3, ["paper", "direct"])
    assert config.orders.value == "paper"


def test_a_protocol_that_an_override_takes_back_sets_nothing(configure: Callable[..., Config]) -> None:
    config = configure("protocol=paper", "protocol=null")
    assert (config.variants, config.orders.value, config.prompt.reply_tokens) == (["direct"], "rotations", None)


def test_it_is_asked_in_chinese_too(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    prompts = prompts_of(bundled[:1], "protocol=paper", "data.languages=[zh]")
    assert prompts[0].messages[0].content.startswith("请只用一个选项编号（例如“A”或“B”）回答下面的问题")
