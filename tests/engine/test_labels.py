from __future__ import annotations

import hashlib
import math

import pytest

from wdct_dist.config.schema import PromptConfig, PromptFormat
from wdct_dist.engine.labels import LabelSpeller, LabelTrie, option_logprobs
from wdct_dist.engine.render import Renderer
from wdct_dist.errors import CheckpointError, EngineError
from wdct_dist.prompts.types import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = ("byte_level", "byte_fallback", "unigram", "wordpiece")


@pytest.fixture
def spell(make_tokenizer, make_prompt):
    """The trie of some labels behind a prompt, and the tokenizer."""

    def spelled(family, labels, template=None, text="Which is it?", **settings):
        tokenizer = make_tokenizer(family, template)
        renderer = Renderer(tokenizer, PromptFormat.auto, PromptConfig())
        speller = LabelSpeller(tokenizer, renderer.encode, **settings)
        return speller.trie(renderer.render([make_prompt(text, labels=labels)])[0], labels), tokenizer

    return spelled


def pieces(trie: LabelTrie, tokenizer, label: str) -> set[tuple[str, ...]]:
    """The spellings of a label as tokens one can read."""
    return {tuple(tokenizer.convert_ids_to_tokens(list(path))) for path in trie.spellings[trie.labels.index(label)]}


def model_logprobs(path: tuple[int, ...], vocab_size: int) -> list[float]:
    """A made-up language model: logprobs of every next token behind the prompt and `path`."""
    weights = [1 + hashlib.sha256(f"{path} {token}".encode()).digest()[0] for token in range(vocab_size)]
    return [math.log(weight / sum(weights)) for weight in weights]


def read_all(trie: LabelTrie, vocab_size: int) -> list[dict[int, float]]:
    return [
        {token: model_logprobs(context, vocab_size)[token] for token in ids} for context, ids in zip(trie.contexts, trie.reads, strict=True)
    ]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("byte_level", {("A",), ("ĠA",)}),
        ("byte_fallback", {("A",), ("▁A",), ("<0x41>",)}),
        ("unigram", {("A",), ("▁A",)}),
        ("wordpiece", {("A",), ("##A",)}),
        ("lowercase", {("a",), ("##a",)}),
    ],
)
@pytest.mark.parametrize("template", [None, CHATML])
def test_every_token_that_reads_as_the_label_is_found_whatever_its_name(spell, family, expected, template):
    trie, tokenizer = spell(family, ("A", "B"), template)
    assert pieces(trie, tokenizer, "A") == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_one_token_need_one_prefill(spell, family):
    trie, _ = spell(family, ("A", "B"))
    assert trie.contexts == ((),)
    assert set(trie.reads[0]) == {token for paths in trie.spellings for (token,) in paths}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [("A", "B", "C", "D"), ("1", "2"), ("(a)", "(b)"), tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
def test_no_token_sequence_counts_for_two_labels(spell, family, labels):
    trie, _ = spell(family, labels)
    paths = [path for own in trie.spellings for path in own]
    assert len(paths) == len(set(paths)) >= len(labels)
    assert not any(a != b and b[: len(a)] == a for a in paths for b in paths)


def test_a_blank_that_stays_a_token_of_its_own_is_followed(spell):
    trie, tokenizer = spell("byte_level", ("1", "2"))
    assert pieces(trie, tokenizer, "1") == {("1",), ("Ġ", "1")}
    assert [tokenizer.convert_ids_to_tokens(list(context)) for context in trie.contexts] == [[], ["Ġ"]]


def test_labels_that_share_their_first_token_are_read_to_their_end(spell):
    trie, tokenizer = spell("wordpiece", ("(a)", "(b)"))
    assert pieces(trie, tokenizer, "(a)") == {("(", "a", ")")}
    contexts = [tokenizer.convert_ids_to_tokens(list(context)) for context in trie.contexts]
    assert contexts == [[], ["("], ["(", "a"], ["(", "b"]]
    assert tokenizer.convert_ids_to_tokens(list(trie.reads[1])) == ["a", "b"]


def test_a_spelling_that_would_change_the_prompts_own_tokens_is_left_out(spell):
    trie, tokenizer = spell("byte_level", ("(a)", "(b)"))  # `Answer:(a)` holds the token `:(`
    assert pieces(trie, tokenizer, "(a)") == {("Ġ(", "a", ")")}
    trie, tokenizer = spell("byte_level", ("(a)", "(b)"), CHATML)
    assert pieces(trie, tokenizer, "(a)") == {("(", "a", ")"), ("Ġ(", "a", ")")}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("byte_level", {("ç", "Ķ", "²"), ("Ġ", "ç", "Ķ", "²")}),
        ("byte_fallback", {("<0xE7>", "<0x94>", "<0xB2>"), ("▁", "<0xE7>", "<0x94>", "<0xB2>")}),
        ("wordpiece", {("甲",)}),
    ],
)
def test_chinese_labels_are_spelled_in_bytes_where_they_have_no_token(spell, family, expected):
    trie, tokenizer = spell(family, ("甲", "乙"))
    assert pieces(trie, tokenizer, "甲") == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [("A", "B"), ("1", "2"), ("(a)", "(b)"), ("A", "B", "C", "D")])
def test_a_label_has_the_summed_probability_of_its_spellings_each_the_product_along_its_tokens(spell, family, labels):
    trie, tokenizer = spell(family, labels)
    by_label, mass = option_logprobs(trie, read_all(trie, len(tokenizer)), tuple(range(len(labels))))
    expected = []
    for paths in trie.spellings:
        total = 0.0
        for path in paths:
            product = 1.0
            for depth, token in enumerate(path):
                product *= math.exp(model_logprobs(path[:depth], len(tokenizer))[token])
            total += product
        expected.append(total)
    assert [math.exp(value) for value in by_label] == pytest.approx(expected, rel=1e-12)
    assert mass == pytest.approx(sum(expected), rel=1e-12)


TWO = LabelTrie(("A", "B", "C"), ((),), ((1, 2, 3),), (((1,),), ((2,),), ((3,),)))


def test_option_logprobs_are_by_option_not_by_label():
    logprobs, mass = option_logprobs(TWO, [{1: math.log(0.5), 2: math.log(0.2), 3: math.log(0.1)}], (2, 0, 1))
    assert [math.exp(value) for value in logprobs] == pytest.approx([0.2, 0.1, 0.5])
    assert mass == pytest.approx(0.8)


def test_improbable_labels_keep_their_precision():
    logprobs, mass = option_logprobs(TWO, [{1: -900.0, 2: -901.5, 3: -2000.0}], (0, 1, 2))
    assert logprobs == (-900.0, -901.5, -2000.0)
    assert mass == 0.0


def test_probabilities_that_rounding_put_above_one_are_one():
    logprobs, mass = option_logprobs(TWO, [{1: 1e-7, 2: -80.0, 3: -80.0}], (0, 1, 2))
    assert logprobs[0] == 0.0
    assert mass == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_no_number_raises(value):
    with pytest.raises(EngineError, match=rf"gave {value} for token 2 of the label 'B'; a finite logprob is needed"):
        option_logprobs(TWO, [{1: -1.0, 2: value, 3: -1.0}], (0, 1, 2))


def test_a_missing_logprob_raises():
    with pytest.raises(EngineError, match="gave no logprob for token 3 of the label 'C'"):
        option_logprobs(TWO, [{1: -1.0, 2: -1.0}], (0, 1, 2))


def test_a_label_that_the_tokenizer_cannot_spell_is_refused_by_name(spell):
    with pytest.raises(CheckpointError, match=r"the wordpiece tokenizer cannot spell the label '丙' behind '.*Answer:'"):
        spell("wordpiece", ("甲", "丙"))


def test_labels_that_a_tokenizer_without_capitals_confuses_are_refused(spell):
    with pytest.raises(CheckpointError, match="the lowercase tokenizer spells the labels 'a' and 'A' with the same tokens"):
        spell("lowercase", ("A", "a"))


def test_a_label_that_begins_another_is_refused(spell):
    with pytest.raises(CheckpointError, match="spells the labels '10' and '1' with the same tokens"):
        spell("byte_level", ("1", "10"))


def test_tokens_that_the_model_has_no_output_for_are_left_out(spell):
    trie, tokenizer = spell("byte_level", ("A", "B"))
    with_blank = tokenizer.convert_tokens_to_ids("ĠA")
    assert with_blank in trie.reads[0]
    trie, _ = spell("byte_level", ("A", "B"), vocab_size=with_blank)
    assert max(trie.reads[0]) < with_blank


def test_prompts_with_the_same_end_share_one_trie(make_tokenizer, make_prompt):
    tokenizer = make_tokenizer("byte_level", CHATML)
    renderer = Renderer(tokenizer, PromptFormat.auto, PromptConfig())
    speller = LabelSpeller(tokenizer, renderer.encode)
    begun = (Message("user", "This?"), Message("assistant", "Answer:"))
    first, second, other = renderer.render([make_prompt("This?"), make_prompt("Or that?"), make_prompt(messages=begun)])
    trie = speller.trie(first, ("A", "B"))
    assert speller.trie(second, ("A", "B")) is trie
    assert speller.trie(other, ("A", "B")) is not trie
    assert speller.trie(first, ("A", "B", "C")) is not trie
