from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import SkipTally
from wdct_dist.prompts.paraphrase import Paraphrases
from wdct_dist.prompts.templates import WORDINGS
from wdct_dist.prompts.types import Prompt
from wdct_dist.prompts.variants.registry import find_variants

AUGMENTED = "variants=[augmented]"


def names(config: Config) -> list[str]:
    return [name for family in find_variants(config) for name, _ in family]


def test_the_full_product_has_a_row_key_for_each_combination(configure: Callable[..., Config]) -> None:
    config = configure(AUGMENTED, "augment.paraphrases=[0,1,2]", "augment.systems=[null,You are terse.]")
    found = names(config)
    assert len(found) == len(set(found)) == 3 * 5 * 3 * 2
    assert found[0] == "augmented/labels=letters/wording=0/paraphrase=0/system=none"
    assert "augmented/labels=digits/wording=2/paraphrase=1/system=1" in found


def test_a_sample_is_of_its_seed_and_keeps_the_order_of_the_product(configure: Callable[..., Config]) -> None:
    product = names(configure(AUGMENTED))
    sample = names(configure(AUGMENTED, "augment.sample=6"))
    assert len(sample) == 6
    assert sample == [name for name in product if name in sample]
    assert sample == names(configure(AUGMENTED, "augment.sample=6"))
    assert sample != names(configure(AUGMENTED, "augment.sample=6", "augment.augment_seed=1"))


@pytest.mark.parametrize("language", sorted(WORDINGS))
def test_every_language_has_at_least_five_wordings_that_differ(
    language: str, prompts_of: Callable[..., list[Prompt]], bundled: list[Item]
) -> None:
    settings = (AUGMENTED, "augment.label_sets=[letters]", "augment.wordings=[0,1,2,3,4,5]", f"data.languages=[{language}]")
    prompts = prompts_of(bundled[:1], *settings, "orders=as_given")
    texts = {prompt.messages[-1].content for prompt in prompts if prompt.side == "word"}
    assert len(texts) == 6
    question = bundled[0].question("word", language)
    assert question is not None
    assert all(question.question in text and question.options[1] in text for text in texts)
    # four begin with the question, so that the prefix cache serves them all; direct's own begins with what is wanted
    assert Counter(text.startswith(question.question) for text in texts) == {True: 4, False: 2}


def test_label_sets_are_shown_and_stored(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    prompts = prompts_of([make_item(num_options=3)], AUGMENTED, "augment.wordings=[0]", "orders=as_given")
    shown = {prompt.variant.split("/")[1]: prompt for prompt in prompts if prompt.side == "word"}
    assert shown["labels=letters"].labels == ("A", "B", "C")
    assert shown["labels=digits"].labels == ("1", "2", "3")
    assert shown["labels=parens"].labels == ("(a)", "(b)", "(c)")
    assert "\n2. say one 1\n" in shown["labels=digits"].messages[0].content
    assert "\n(b) say one 1\n" in shown["labels=parens"].messages[0].content
    assert "(a), (b) or (c)" in shown["labels=parens"].messages[0].content


def test_wording_0_with_letters_is_the_prompt_of_direct(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    settings = ("variants=[direct,augmented]", "augment.label_sets=[letters]", "augment.wordings=[0]", "prompt.system=Be brief.")
    prompts = prompts_of([make_item()], *settings)
    assert [p.messages for p in prompts[:4]] == [p.messages for p in prompts[4:]]
    assert prompts[4].variant.endswith("system=own")


def test_a_system_message_of_the_list_takes_the_place_of_the_runs_own(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    settings = (AUGMENTED, "augment.label_sets=[letters]", "augment.wordings=[0]", "prompt.system=Own.", "augment.systems=[Other.,null]")
    prompts = prompts_of([make_item()], *settings)
    assert {p.variant.rpartition("/")[2]: p.messages[0].content for p in prompts} == {"system=0": "Other.", "system=own": "Own."}


def test_more_options_than_digits_are_left_out(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    skipped = SkipTally()
    settings = (AUGMENTED, "augment.label_sets=[letters,digits]", "augment.wordings=[0]")
    prompts = prompts_of([make_item(num_options=10)], *settings, skipped=skipped)
    assert {prompt.variant.split("/")[1] for prompt in prompts} == {"labels=letters"}
    assert skipped.lines() == [
        "augmented/labels=digits/wording=0/paraphrase=0/system=none: 1 items left out: more options than there are digits"
    ]


PLAIN = (AUGMENTED, "augment.label_sets=[letters]", "augment.wordings=[0]", "orders=as_given")


def question(text: str) -> Question:
    return Question(text, (f"{text} yes", f"{text} no"))


def test_paraphrases_are_asked_under_their_number_and_items_without_are_left_out(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    both = make_item("both", paraphrases={"word": (question("w1"),), "deed": (question("d1"),)})
    half = make_item("half", paraphrases={"word": (question("w1"),)})
    skipped = SkipTally()
    prompts = prompts_of([both, half], *PLAIN, "augment.paraphrases=[1]", skipped=skipped)
    assert [(prompt.item_id, prompt.messages[0].content.split("\n")[2]) for prompt in prompts] == [("both", "w1"), ("both", "d1")]
    assert [line.partition(": ")[2] for line in skipped.lines()] == ["1 items left out: no paraphrase 1 of both questions in en"]


def test_paraphrases_that_a_model_wrote_come_behind_the_items_own(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    item = make_item("one", paraphrases={"word": (question("own"),)})
    written = Paraphrases(
        {("one", "word", "en"): {1: question("never"), 2: question("w2")}, ("one", "deed", "en"): {1: question("d1"), 2: question("d2")}}
    )
    prompts = prompts_of([item], *PLAIN, "augment.paraphrases=[1,2]", written=written)
    assert [prompt.messages[0].content.split("\n")[2] for prompt in prompts] == ["own", "d1", "w2", "d2"]


def test_written_paraphrases_make_up_for_those_that_a_translation_lacks(
    prompts_of: Callable[..., list[Prompt]], bundled: list[Item]
) -> None:
    item = bundled[0]
    written = Paraphrases({(item.item_id, side, "zh"): {1: question(f"改写{side}")} for side in ("word", "deed")})  # type: ignore[misc]
    prompts = prompts_of([item], *PLAIN, "augment.paraphrases=[1]", "data.languages=[zh]", written=written)
    assert [prompt.messages[0].content.split("\n")[2] for prompt in prompts] == ["改写word", "改写deed"]


def test_the_bundled_items_have_two_paraphrases_of_everything(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    skipped = SkipTally()
    prompts = prompts_of(bundled, *PLAIN, "augment.paraphrases=[0,1,2]", skipped=skipped)
    assert len(prompts) == 96 * 2 * 3
    assert not skipped.items


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.wordings=[0,6]", r"augment\.wordings: \[6\] came; there are the wordings 0 to 5"),
        ("augment.sample=16", r"augment\.sample: 16 combinations were asked for, the factors have 15"),
    ],
)
def test_what_there_is_not_is_named(override: str, message: str, configure: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=message):
        find_variants(configure(AUGMENTED, override))
