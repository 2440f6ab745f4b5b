"""What is trained on is, token for token, what is evaluated: for every family of tokenizers, in chats and in plain text."""

from __future__ import annotations

import pytest

from wdct_dist.align.tokens import TrainingTokens
from wdct_dist.align.types import Example, Pair
from wdct_dist.config.schema import Config, DataConfig, PromptConfig
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.render import Renderer
from wdct_dist.errors import CheckpointError
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts
from wdct_dist.prompts.types import Message

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
ASKED = [("byte_level", CHATML), ("byte_fallback", MISTRAL), ("unigram", CHATML), ("byte_level", None), ("byte_fallback", None)]


def tokenizer_of(make_tokenizer, family, template):
    tokenizer = make_tokenizer(family, template)
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    return tokenizer


@pytest.fixture(params=ASKED, ids=lambda one: f"{one[0]}-{'plain' if one[1] is None else 'chat'}")
def tokenizer(request, make_tokenizer):
    return tokenizer_of(make_tokenizer, *request.param)


def prompts_of(**settings):
    """The evaluation's prompts of three bundled items, one of them with more than two options."""
    config = Config(data=DataConfig(path="bundled"), prompt=PromptConfig(**settings))
    items = list(select_items(config.data))
    chosen = [*items[:2], next(item for item in items if item.num_options > 2)]
    return [prompt for prompt in build_prompts(chosen, config) if prompt.side == "word"], config.prompt


@pytest.mark.parametrize("prefix", ["", "The answer is"])
def test_a_trained_prompt_is_the_evaluated_prompt_and_a_trained_label_one_that_is_read_there(tokenizer, prefix):
    prompts, settings = prompts_of(answer_prefix=prefix)
    renderer = Renderer(tokenizer, settings.format, settings)
    speller = LabelSpeller(tokenizer, renderer.encode)
    evaluated = renderer.render(prompts)
    blank = " " if prefix else ""
    examples = [Example(one.messages, blank + one.labels[1], "item", one.item_id) for one in prompts]
    pairs = [Pair(one.messages, blank + one.labels[1], blank + one.labels[0], one.item_id) for one in prompts]
    tokens = TrainingTokens(tokenizer, settings)
    for prompt, sent, sft, dpo in zip(
        prompts, evaluated, tokens.examples(examples, 10_000).sft, tokens.pairs(pairs, 10_000).dpo, strict=True
    ):
        assert sft.prompt_ids == dpo.prompt_ids == sent.token_ids
        read = speller.trie(sent, prompt.labels).spellings
        end = len(sft.completion_ids) - 1
        assert sft.completion_ids[end:] == (tokenizer.eos_token_id,)
        assert sft.completion_ids[:end] in read[1]
        assert (dpo.chosen_ids[:-1] in read[1], dpo.rejected_ids[:-1] in read[0]) == (True, True)


def test_a_whole_chat_is_what_the_template_makes_of_it_and_no_special_token_comes_twice(make_tokenizer):
    for family, template in (("byte_level", CHATML), ("byte_fallback", MISTRAL), ("unigram", CHATML)):
        tokenizer = tokenizer_of(make_tokenizer, family, template)
        tokens = TrainingTokens(tokenizer, PromptConfig())
        (row,) = tokens.examples([Example((Message("user", "Say (A)"),), "(A) it is", "instruction", None)], 512).sft
        chat = [{"role": "user", "content": "Say (A)"}, {"role": "assistant", "content": "(A) it is"}]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        trained = [*row.prompt_ids, *row.completion_ids]
        assert trained == whole[: len(trained)]
        assert row.completion_ids.count(tokenizer.eos_token_id) == 1


def test_a_label_has_a_blank_in_front_only_where_replies_begin_with_one(make_tokenizer):
    def spelled(family, template):
        tokenizer = tokenizer_of(make_tokenizer, family, template)
        tokens = TrainingTokens(tokenizer, PromptConfig())
        (row,) = tokens.examples([Example((Message("user", "Which?"),), "A", "item", "i")], 512).sft
        return tokenizer.convert_ids_to_tokens(row.completion_ids[0])

    assert spelled("byte_level", CHATML) == "A"
    assert spelled("byte_level", None) == "ĠA"
    assert spelled("byte_fallback", MISTRAL) == "▁A"


def test_what_is_too_long_is_left_out_and_counted_and_never_cut(make_tokenizer):
    tokens = TrainingTokens(tokenizer_of(make_tokenizer, "byte_level", CHATML), PromptConfig())
    short, long = (Example((Message("user", text),), "A", "item", "i") for text in ("Which?", "Which? " * 20))
    size = sum(map(len, (tokens.examples([short], 512).sft[0].prompt_ids, tokens.examples([short], 512).sft[0].completion_ids)))
    assert (len(tokens.examples([short, long], size).sft), tokens.examples([short, long], size).num_too_long) == (1, 1)
    assert tokens.examples([short, long], size - 1).sft == []


def test_a_model_without_a_template_is_refused_where_a_chat_is_asked_for(make_tokenizer):
    from wdct_dist.config.schema import PromptFormat

    with pytest.raises(CheckpointError, match=r"has no chat template; use prompt\.format: plain"):
        TrainingTokens(tokenizer_of(make_tokenizer, "byte_level", None), PromptConfig(format=PromptFormat.chat))
