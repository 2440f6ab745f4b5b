from __future__ import annotations

import pytest

from wdct_dist.engine.thinking import THINK, Tags, opened_at_end, scan, stop_in, thinking_tags

BRACKETS = Tags("[THINK]", "[/THINK]")
TAGS = (THINK, BRACKETS)
STOP = ("**Answer", "Answer:")


def spoken(text, opened=None):
    return [text[start:stop] for start, stop in scan(text, TAGS, opened).spoken]


@pytest.mark.parametrize(
    ("text", "outside", "left_open"),
    [
        ("", [], None),
        ("I hold it.", ["I hold it."], None),
        ("<think>why</think>so", ["so"], None),
        ("well <think>why</think> so <think>hm</think>", ["well ", " so "], None),
        ("<think>why", [], THINK),
        ("so [THINK]a </think> b", ["so "], BRACKETS),
        ("[THINK]<think>[/THINK]so", ["so"], None),
        ("a stray </think> is text", ["a stray </think> is text"], None),
        ("half a tag <thin", ["half a tag <thin"], None),
    ],
)
def test_thinking_is_what_stands_between_two_tags(text, outside, left_open):
    assert spoken(text) == outside
    assert scan(text, TAGS).open == left_open


def test_thinking_that_was_open_before_goes_on():
    assert spoken("still why</think>so", THINK) == ["so"]
    assert scan("still why", TAGS, THINK).open is THINK
    assert spoken("[/THINK]", THINK) == []


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("I hold it.\nAnswer: A", "I hold it.\n"),
        ("I hold it. **Answer: A**", "I hold it. "),
        ("Answer: A", ""),
        ("first Answer: A, **Answer: B", "first "),
        ("<think>Answer: A</think> so Answer: B", "<think>Answer: A</think> so "),
        ("<think>Answer: A", None),
        ("I hold it.", None),
        ("Ans<think></think>wer:", None),
    ],
)
def test_a_stop_string_counts_outside_thinking(text, before):
    place = stop_in(text, scan(text, TAGS), STOP)
    assert (None if place is None else text[:place]) == before


def test_of_stop_strings_that_end_together_the_first_of_the_list_counts():
    text = "so **Answer:"
    assert stop_in(text, scan(text, TAGS), ("**Answer:", "Answer:")) == 3
    assert stop_in(text, scan(text, TAGS), ("Answer:", "**Answer:")) == 5


def test_a_tokenizers_own_tags_count_where_it_has_both(make_tokenizer):
    tokenizer = make_tokenizer("byte_level")
    assert thinking_tags(tokenizer) == (THINK,)
    tokenizer.add_tokens(["[THINK]"])
    assert thinking_tags(tokenizer) == (THINK,)
    tokenizer.add_tokens(["[/THINK]"], special_tokens=True)
    assert thinking_tags(tokenizer) == (THINK, BRACKETS)


def test_a_prompt_can_end_in_an_open_block():
    assert opened_at_end("<|assistant|><think>\n", TAGS) is THINK
    assert opened_at_end("What does <think> mean?", TAGS) is None
