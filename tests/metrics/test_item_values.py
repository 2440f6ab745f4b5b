"""What an item adds to a comparison, worked by hand on ten rows."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.item_values import family_values, item_values
from wdct_dist.tables import schema

FIRST, SECOND, TIE = [0.8, 0.2], [0.1, 0.9], [0.5, 0.5]


def row(item: str, word: list[float] | None, deed: list[float] | None, match: float | None, trial: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "checkpoint_id": "a",
        "variant": "direct",
        "language": "en",
        "trial": trial,
        "item_id": item,
        "word_probs": word,
        "deed_probs": deed,
        "match": match,
        "pcs": match,
        "pcs_debiased": match,
    } | more


TEN = [
    # agreeing, differing, a tie on one side, no answer on one side
    row("agree", FIRST, FIRST, 1.0),
    row("differ", FIRST, SECOND, 0.0),
    row("tie", TIE, FIRST, 0.5),
    row("silent", FIRST, None, None),
    # three options, two of which tie: words and deeds share one of them in half of the draws
    row("three", [0.4, 0.4, 0.2], [0.4, 0.2, 0.4], 0.25),
    # two trials: the mean of the probabilities decides, the mean of the matches is the metric
    row("trials", FIRST, SECOND, 0.0, 0),
    row("trials", FIRST, [0.95, 0.05], 1.0, 1),
    # a trial without an answer counts for nothing
    row("once", FIRST, None, None, 0),
    row("once", FIRST, FIRST, 1.0, 1),
    # another way of asking is another row
    row("agree", FIRST, SECOND, 0.0, variant="cot"),
]


def values(rows: list[dict[str, Any]], max_options: int = 3) -> dict[tuple[str, str], dict[str, Any]]:
    frame = pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy()
    found = item_values(frame, max_options).collect()
    return {(one["variant"], one["item_id"]): one for one in found.iter_rows(named=True)}


@pytest.mark.parametrize(
    ("name", "cs", "cs_debiased", "matched"),
    [
        ("agree", 1.0, 1.0, True),
        ("differ", 0.0, 0.0, False),
        ("tie", 0.5, 0.5, None),
        ("silent", None, None, None),
        ("three", 0.25, 0.25, None),
        # deeds: (0.1 + 0.95) / 2 = 0.525 for the first option, so the averaged answers agree
        ("trials", 0.5, 0.5, True),
        ("once", 1.0, 1.0, True),
    ],
)
def test_an_items_values_are_means_over_its_trials(name: str, cs: float | None, cs_debiased: float | None, matched: bool | None) -> None:
    one = values(TEN)["direct", name]
    assert (one["cs"], one["cs_debiased"], one["pcs"], one["matched"]) == (cs, cs_debiased, cs, matched)


def test_probabilities_are_averaged_over_the_trials_that_have_them() -> None:
    found = values(TEN)
    assert found["direct", "trials"]["deed_probs"] == pytest.approx([0.525, 0.475])
    assert found["direct", "once"]["deed_probs"] == pytest.approx(FIRST)
    assert found["direct", "silent"]["deed_probs"] is None
    assert found["direct", "three"]["word_probs"] == pytest.approx([0.4, 0.4, 0.2])


def spoken(item: str, word: int | None, deed: int | None, match: float | None, trial: int = 0, **more: Any) -> dict[str, Any]:
    """A row whose answers are what the text says."""
    ties = {"word_tie": False, "deed_tie": False, "num_options": 2}
    return row(item, None, None, match, trial, word_option=word, deed_option=deed) | ties | more


SPOKEN = [
    # the first token's probabilities differ where the texts agree
    spoken("agree", 1, 1, 1.0, variant="paper", word_probs=FIRST, deed_probs=SECOND),
    spoken("differ", 0, 1, 0.0, variant="paper", word_probs=FIRST, deed_probs=FIRST),
    # an API without probabilities: two orders that say two options tie
    spoken("mute", 0, 0, 1.0),
    spoken("torn", None, 1, 0.5, word_tie=True),
    spoken("silent", None, 1, None, word_tie=None),
    spoken("three", 2, 1, 0.0, num_options=3),
    # two of three trials say the second option in deeds
    *(spoken("trials", 1, deed, float(deed == 1), trial) for trial, deed in enumerate((1, 0, 1))),
]


@pytest.mark.parametrize(
    ("variant", "name", "cs_debiased", "matched"),
    [
        ("paper", "agree", 1.0, True),
        ("paper", "differ", 0.0, False),
        ("direct", "mute", 1.0, True),
        ("direct", "torn", 0.5, None),
        ("direct", "silent", None, None),
        ("direct", "three", 0.0, False),
        ("direct", "trials", 2 / 3, True),
    ],
)
def test_answers_that_the_text_gives_decide_as_in_the_summary(
    variant: str, name: str, cs_debiased: float | None, matched: bool | None
) -> None:
    found = values(SPOKEN)[variant, name]
    assert (found["cs_debiased"], found["matched"]) == (pytest.approx(cs_debiased), matched)


def test_there_is_one_row_for_each_way_of_asking_and_item() -> None:
    found = values(TEN)
    assert len(found) == 8
    assert found["cot", "agree"]["cs"] == 0.0


def test_a_family_is_judged_by_the_probabilities_averaged_over_its_members() -> None:
    members = [
        row("x", FIRST, SECOND, 0.0, variant="augmented/labels=letters"),
        row("x", FIRST, [0.95, 0.05], 1.0, variant="augmented/labels=digits"),
        row("x", SECOND, None, None, variant="augmented/labels=parens"),
        row("x", SECOND, SECOND, 1.0),
    ]
    frame = pl.DataFrame(members, schema=polars_schema(schema.SCORES_ITEMS)).lazy()
    variants = ["augmented/labels=letters", "augmented/labels=digits", "augmented/labels=parens", "direct"]
    (one,) = family_values(item_values(frame, 2), variants, 2).collect().iter_rows(named=True)
    assert one["variant"] == "augmented"
    assert one["cs"] == 0.5
    # words (0.8 + 0.8 + 0.1) / 3, deeds (0.1 + 0.95) / 2: both lean to the first option
    assert one["word_probs"] == pytest.approx([1.7 / 3, 1.3 / 3])
    assert one["deed_probs"] == pytest.approx([0.525, 0.475])
    assert (one["cs_debiased"], one["matched"]) == (1.0, True)
    assert 0.99 < one["pcs_debiased"] < 1.0
