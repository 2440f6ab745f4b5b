"""What holds for any answers: measures do not depend on how options are named, ordered or on which side is called which."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wdct_dist.metrics.bootstrap import Bootstrap, intervals
from wdct_dist.metrics.compute import score
from wdct_dist.prompts.permute import by_option

MEASURES = ["match", "match_debiased", "pcs", "pcs_debiased", "word_tie", "deed_tie", "word_stable", "deed_stable"]


class OneCheckpoint:
    """An `AnswerSource` of one table."""

    def __init__(self, answers: pa.Table) -> None:
        self._answers = answers

    def checkpoints(self) -> list[str]:
        return ["c"]

    def tables(self, checkpoint_id: str) -> pl.LazyFrame:
        return pl.DataFrame(self._answers).lazy()


def measures(built: Any) -> dict[str, Any]:
    """The measures of the one item in `built`."""
    scored: list[pa.Table] = []
    prompts, items = pl.DataFrame(built.prompts).lazy(), pl.DataFrame(built.items).lazy()
    score(OneCheckpoint(built.answers), prompts, items, write_items=scored.append, bootstrap=Bootstrap(0))
    (row,) = pl.DataFrame(pa.concat_tables(scored)).select(MEASURES).to_dicts()
    return row


@st.composite
def questions(draw: st.DrawFn) -> tuple[int, list[list[float]], list[tuple[int, ...]], tuple[int, ...]]:
    """k, probabilities of two orders of words and two of deeds (ties are frequent), the orders, and a renaming of the options."""
    k = draw(st.integers(2, 5))
    steps = st.lists(st.integers(1, 6), min_size=k, max_size=k)
    weights = [draw(steps) for _ in range(4)]
    probs = [[weight / sum(own) for weight in own] for own in weights]
    orders = [tuple(range(k)), (*range(1, k), 0)]
    return k, probs, orders, tuple(draw(st.permutations(range(k))))


@settings(max_examples=40, deadline=None)
@given(questions())
def test_renaming_the_options_of_both_sides_alike_changes_nothing(ask: Any, tables: Any, question: Any) -> None:
    k, probs, orders, renamed = question

    def build(rename: tuple[int, ...]) -> Any:
        asked = [
            ask("i", side, tuple(rename[option] for option in order), tuple(by_option(own, rename)))
            for (side, order), own in zip(itertools.product(("word", "deed"), orders), probs, strict=True)
        ]
        return measures(tables(asked))

    found, again = build(tuple(range(k))), build(renamed)
    assert again == pytest.approx(found, abs=1e-12)
    assert 0.0 <= found["match"] <= 1.0


@settings(max_examples=40, deadline=None)
@given(questions())
def test_pcs_and_cs_are_symmetric_and_in_0_to_1(ask: Any, tables: Any, question: Any) -> None:
    _, probs, orders, _ = question

    def build(sides: tuple[str, str]) -> Any:
        asked = [ask("i", side, order, tuple(own)) for (side, order), own in zip(itertools.product(sides, orders), probs, strict=True)]
        return measures(tables(asked))

    there, back = build(("word", "deed")), build(("deed", "word"))
    for name in ("match", "match_debiased", "pcs", "pcs_debiased"):
        assert there[name] == pytest.approx(back[name], abs=1e-12)
    assert 0.0 <= there["pcs"] <= 1.0
    assert 0.0 <= there["pcs_debiased"] <= 1.0


@given(st.integers(2, 6).flatmap(lambda k: st.tuples(st.permutations(range(k)), st.lists(st.floats(), min_size=k, max_size=k))))
def test_an_order_is_undone_exactly(case: tuple[list[int], list[float]]) -> None:
    permutation, values = tuple(case[0]), case[1]
    shown = [values[option] for option in permutation]
    undone = by_option(shown, permutation)
    assert np.array(undone).tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize("k", range(2, 7))
def test_every_order_of_k_options_is_undone_exactly(k: int) -> None:
    options = tuple(f"option {number}" for number in range(k))
    for permutation in itertools.permutations(range(k)):
        assert by_option([options[option] for option in permutation], permutation) == options


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_cover_the_truth_at_their_level(level: float) -> None:
    generator = np.random.default_rng(17)
    truth, runs, covered = 0.75, 300, 0
    for seed in range(runs):
        # like PCS: between 0 and 1, skewed, mean 3 / (3 + 1)
        values = generator.beta(3, 1, size=(1, 120))
        low, high = intervals(values, np.ones_like(values), Bootstrap(300, seed=seed, level=level), "all")[0]
        covered += int(low <= truth <= high)
    # binomial: four standard deviations either way
    assert abs(covered - level * runs) <= 4 * (runs * level * (1 - level)) ** 0.5
