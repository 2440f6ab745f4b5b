"""From items to prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wdct_dist.config.load import load_config
from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import build_prompts
from wdct_dist.prompts.types import Prompt

ITEM = Item(
    "tea",
    "Opinion",
    {
        "word": Question("Tea or coffee?", ("Tea.", "Coffee.", "Neither.")),
        "deed": Question("What do you order?", ("A tea.", "A coffee.", "Water.")),
    },
    translations={
        "zh": {
            "word": Question("茶还是咖啡？", ("茶。", "咖啡。", "都不要。")),
            "deed": Question("你点什么？", ("一杯茶。", "一杯咖啡。", "水。")),
        }
    },
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "c.yaml").write_text("checkpoints: [a]\n")
    return load_config(tmp_path / "c.yaml")


def built(config: Config, *items: Item) -> list[Prompt]:
    return list(build_prompts(items or (ITEM,), config))


def test_both_sides_are_asked_in_every_order(config: Config) -> None:
    prompts = built(config)
    assert [(prompt.side, prompt.permutation) for prompt in prompts] == [
        (side, order) for side in ("word", "deed") for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    ]


def test_the_options_stand_at_the_labels_that_the_permutation_says(config: Config) -> None:
    instruction, text = built(config)[1].messages[0].content.split("\n\n")
    assert instruction.endswith("A, B or C.")
    assert text.splitlines() == ["Tea or coffee?", "A. Coffee.", "B. Neither.", "C. Tea."]


def test_a_prompt_id_is_the_same_in_every_process_and_differs_between_prompts(config: Config) -> None:
    prompts = built(config)
    assert prompts[0].prompt_id == "451721aa8c6cb2042899"
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)


def test_items_with_the_same_question_have_prompts_of_their_own(config: Config) -> None:
    twin = Item("tea-2", ITEM.domain, ITEM.questions)
    prompts = built(config, ITEM, twin)
    assert len({prompt.prompt_id for prompt in prompts}) == 12


def test_a_change_of_wording_is_another_prompt(config: Config) -> None:
    before = built(config)[0].prompt_id
    config.prompt.system = "You are a customer."
    prompt = built(config)[0]
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert prompt.prompt_id != before


def test_an_answer_prefix_begins_the_reply(config: Config) -> None:
    config.prompt.answer_prefix = "Answer:"
    assert [(message.role, message.content) for message in built(config)[0].messages][-1] == ("assistant", "Answer:")


def test_languages_are_asked_in_their_own_words(config: Config) -> None:
    config.data.languages = ["en", "zh"]
    prompts = built(config)
    assert [prompt.language for prompt in prompts].count("zh") == 6
    assert prompts[6].messages[0].content == "请只回答一个选项的标签：A、B或C。\n\n茶还是咖啡？\nA. 茶。\nB. 咖啡。\nC. 都不要。"


def test_an_item_without_a_translation_is_left_out_in_that_language(config: Config) -> None:
    config.data.languages = ["zh"]
    prompts = built(config, Item("x", "Opinion", ITEM.questions), ITEM)
    assert {prompt.item_id for prompt in prompts} == {"tea"}


def test_other_labels_are_shown(config: Config) -> None:
    config.prompt.labels = ["1", "2", "3"]
    prompt = built(config)[0]
    assert prompt.labels == ("1", "2", "3")
    assert "2. Coffee." in prompt.messages[0].content


def test_too_few_labels_are_refused(config: Config) -> None:
    config.prompt.labels = ["A", "B"]
    with pytest.raises(ConfigError, match="item tea has 3 options"):
        built(config)


@pytest.mark.parametrize("code", ["zh-CN", "zh_Hans"])
def test_a_regional_code_is_asked_in_the_words_of_its_language(config: Config, code: str) -> None:
    config.data.languages = [code]
    regional = built(config, replace(ITEM, translations={code: ITEM.translations["zh"]}))
    config.data.languages = ["zh"]
    assert [prompt.messages for prompt in regional] == [prompt.messages for prompt in built(config)]
    assert {prompt.plain_cue for prompt in regional} == {"答案："}
