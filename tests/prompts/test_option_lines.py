"""The options of a prompt, read back from its text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wdct_dist.items.types import Item
from wdct_dist.prompts.option_lines import read_option_lines
from wdct_dist.prompts.templates import WORDINGS, direct_text, option_lines
from wdct_dist.prompts.types import Prompt

LABELS = [tuple("ABCDEF"), tuple("123456"), ("(a)", "(b)", "(c)", "(d)", "(e)", "(f)")]
OPTION = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30).map(str.strip).filter(bool)


@settings(deadline=None)
@given(st.lists(OPTION, min_size=2, max_size=6), st.sampled_from(LABELS), st.sampled_from(sorted(WORDINGS)), st.integers(0, 5))
def test_what_a_wording_shows_is_read_back(options: list[str], labels: tuple[str, ...], language: str, number: int) -> None:
    text = direct_text(WORDINGS[language], "Which one?", options, labels[: len(options)], number)
    assert read_option_lines(text, labels[: len(options)]) == tuple(options)


@pytest.mark.parametrize("variant", ["direct", "cot", "joint", "augmented"])
def test_every_prompt_of_the_bundled_items_shows_its_own_options(
    variant: str, bundled: list[Item], prompts_of: Callable[..., list[Prompt]]
) -> None:
    items = {item.item_id: item for item in bundled[::12]}
    prompts = prompts_of(list(items.values()), f"variants=[{variant}]", "cot.shots=3", "data.languages=[en,zh]")
    assert prompts
    for prompt in prompts:
        question = items[prompt.item_id].question(prompt.side, prompt.language)
        assert question is not None
        asked = next(message for message in reversed(prompt.messages) if message.role == "user")
        shown = read_option_lines(asked.content, prompt.labels)
        if "paraphrase=0" in prompt.variant or not prompt.variant.startswith("augmented"):
            assert shown == tuple(question.options[option] for option in prompt.permutation)
        assert len(shown) == len(prompt.labels)


def test_the_last_options_count_where_demonstrations_show_others() -> None:
    text = "\n\n".join([option_lines(["old", "older"], "AB"), option_lines(["new", "newer"], "AB")])
    assert read_option_lines(text, ("A", "B")) == ("new", "newer")


@pytest.mark.parametrize("text", ["", "A. one", "B. two\nA. one", "A man came.\nB was there."])
def test_a_text_without_such_lines_has_no_options(text: str) -> None:
    assert read_option_lines(text, ("A", "B")) == ()
