from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wdct_dist.align.examples import Augmentation, item_examples, item_pairs, mix
from wdct_dist.align.instructions import read_instructions
from wdct_dist.align.preferences import HELD_OUT, Preferences, find_preferences
from wdct_dist.config.schema import Config, PromptConfig
from wdct_dist.errors import DataError
from wdct_dist.items.types import Item
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt

Find = Callable[[str], Preferences]


@pytest.fixture(scope="session")
def find(said: Any, scores: Any, items: list[Item]) -> Find:
    """Preferences for a side; words answer 0 and deeds 1 throughout, a quarter is held out."""
    probs = {2: (0.6, 0.4), 3: (0.5, 0.4, 0.1), 4: (0.4, 0.4, 0.15, 0.05)}
    table = scores([said(item, 0, 1, probs[item.num_options]) for item in items])
    return lambda side: find_preferences(table, items, "base", side, held_out=0.25)


def evaluated(items: list[Item], config: Config) -> dict[tuple[Any, ...], Prompt]:
    """The evaluation's prompts by their messages."""
    return {prompt.messages: prompt for prompt in build_prompts(items, config)}


@pytest.mark.parametrize("side", ["word", "deed"])
@pytest.mark.parametrize("prompt", [PromptConfig(), PromptConfig(system="Be brief.", labels=list("PQRST"))])
def test_the_trained_prompts_are_the_evaluated_prompts_and_their_labels_mean_the_options(
    find: Find, items: list[Item], side: str, prompt: PromptConfig
) -> None:
    config = Config(prompt=prompt, variants=["cot"])
    asked = evaluated(items, replace(config, variants=["direct"]))
    found = find(side)
    options = {row["item_id"]: row for row in found.table.to_dicts()}
    pairs = item_pairs(found, items, config, Augmentation("rotations"))
    held_out = set(found.split(HELD_OUT)["item_id"])
    for pair in pairs:
        prompt_of = asked[pair.messages]
        assert (prompt_of.side, prompt_of.item_id) == (side, pair.item_id)
        assert pair.item_id not in held_out
        for label, name in ((pair.chosen, "target_option"), (pair.rejected, "baseline_option")):
            assert prompt_of.permutation[prompt_of.labels.index(label)] == options[pair.item_id][name]
    trained = [item for item in items if item.item_id not in held_out]
    assert len({pair.messages for pair in pairs}) == len(pairs) == sum(item.num_options for item in trained)
    examples = item_examples(found, items, config, Augmentation("rotations"))
    assert [(one.messages, one.completion, one.item_id) for one in examples] == [(one.messages, one.chosen, one.item_id) for one in pairs]


def test_one_order_an_item_is_drawn_with_the_seed(find: Find, items: list[Item]) -> None:
    asked = evaluated(items, Config())
    one, again, other = (item_pairs(find("word"), items, Config(), Augmentation("one", order_seed=seed)) for seed in (0, 0, 1))
    assert one == again != other
    assert len(one) == len({pair.item_id for pair in one}) == 72
    assert {asked[pair.messages].permutation[0] for pair in one} == {0, 1, 2, 3}
    assert len({pair.chosen for pair in one}) == 4, "were the orders fixed, the label alone would be learned"


def test_paraphrases_are_trained_beside_the_own_text_and_lacking_ones_counted(find: Find, items: list[Item]) -> None:
    found, plain = find("word"), item_pairs(find("word"), items, Config())
    pairs = item_pairs(found, items, Config(), Augmentation(paraphrases=True))
    assert len(pairs) == len({pair.messages for pair in pairs}) == 3 * len(plain)
    assert {pair.messages for pair in plain} < {pair.messages for pair in pairs}
    trained = found.split("train")["item_id"].to_list()
    item = next(item for item in items if item.item_id == trained[0])
    texts = [pair.messages[0].content for pair in pairs if pair.item_id == item.item_id]
    assert all(item.paraphrases["word"][number].question in texts[number + 1] for number in (0, 1))
    tally = SkipTally()
    fewer = [replace(one, paraphrases={}) if one is item else one for one in items]
    assert len(item_pairs(found, fewer, Config(), Augmentation(paraphrases=True), skipped=tally)) == len(pairs) - 2
    assert sum(tally.items.values()) == 2
    with pytest.raises(DataError, match=r"augment\.paraphrases: no item has a paraphrase"):
        item_pairs(found, [replace(one, paraphrases={}) for one in items], Config(), Augmentation(paraphrases=True))


def test_a_reply_that_is_begun_goes_on_with_a_blank_and_the_label(find: Find, items: list[Item]) -> None:
    for prefix, begins in (("Answer:", " "), ("Answer: ", "")):
        pair = item_pairs(find("word"), items, Config(prompt=PromptConfig(answer_prefix=prefix)))[0]
        assert pair.messages[-1].content == prefix
        assert len(pair.chosen) == len(begins) + 1
        assert pair.chosen.startswith(begins)


def test_an_item_that_is_not_in_the_data_is_named(find: Find, items: list[Item]) -> None:
    lacking = find("word").split("train")["item_id"][0]
    with pytest.raises(DataError, match=f"1 items to train on are not in the data .*{lacking}"):
        item_pairs(find("word"), [item for item in items if item.item_id != lacking], Config())


def test_a_mix_has_nine_instruction_examples_to_one_item_example(find: Find, items: list[Item]) -> None:
    instructions = read_instructions("bundled").examples
    examples = item_examples(find("word"), items, Config())[:10]
    found = mix(examples, instructions)
    assert (found.num_items, found.num_instructions, found.num_wanted) == (10, 90, 90)
    assert sorted(one.source for one in found.examples) == ["instruction"] * 90 + ["item"] * 10
    assert len(set(found.examples)) == 100
    assert [one.source for one in found.examples[:10]] != ["item"] * 10, "they are shuffled"
    assert mix(examples, instructions) == found != mix(examples, instructions, seed=1)
    assert found.lines() == ["10 item examples and 90 instruction examples"]
    assert mix(examples, instructions, ratio=0).num_instructions == 0


def test_a_mix_with_fewer_examples_than_asked_says_so_and_repeats_none(find: Find, items: list[Item]) -> None:
    instructions = read_instructions("bundled").examples[:30]
    found = mix(item_examples(find("word"), items, Config())[:10], instructions)
    assert sum(one.source == "instruction" for one in found.examples) == 30 == found.num_instructions
    assert "the instruction set has 30 examples, 90 were asked for" in found.lines()[1]
    assert "the ratio is 3 to 1" in found.lines()[1]


def test_an_empty_mix_is_refused(find: Find, items: list[Item]) -> None:
    examples = item_examples(find("word"), items, Config())[:10]
    with pytest.raises(DataError, match="The instruction mix is empty, and 90 examples were asked for"):
        mix(examples, [])
    with pytest.raises(DataError, match="no item example"):
        mix([], read_instructions("bundled").examples)
