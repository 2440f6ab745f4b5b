"""Answers from lists of probabilities, for any number of options at once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wdct_dist.metrics.prob_lists import answer_shares, as_lists, mean_by_option, one_minus_jsd, same_option

LISTS = pl.DataFrame(
    {
        "one": [[0.7, 0.3], [0.5, 0.5], [0.2, 0.4, 0.4], None, [1.0, 0.0]],
        "other": [[0.6, 0.4], [0.1, 0.9], [0.4, 0.4, 0.2], [0.5, 0.5], [0.0, 1.0]],
    }
)
ONE, OTHER = pl.col("one"), pl.col("other")


def test_the_most_probable_option_has_the_answer_and_ties_share_it() -> None:
    found = LISTS.lazy().select(answer_shares(ONE)).collect()["one"].to_list()
    assert found == [[1.0, 0.0], [0.5, 0.5], [0.0, 0.5, 0.5], None, [1.0, 0.0]]


def test_two_answers_are_the_same_option_with_this_probability() -> None:
    found = LISTS.lazy().select(same_option(answer_shares(ONE), answer_shares(OTHER))).collect().to_series().to_list()
    assert found == [1.0, 0.5, 0.25, None, 0.0]


def test_one_minus_jsd_of_equal_and_of_opposite_lists() -> None:
    found = LISTS.lazy().select(same=one_minus_jsd(ONE, ONE), far=one_minus_jsd(ONE, OTHER)).collect()
    assert found["same"].to_list() == [1.0, 1.0, 1.0, None, 1.0]
    assert found["far"][4] == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_pcs_is_symmetric_in_0_to_1_and_as_numpy_has_it(weights: list[tuple[float, float]]) -> None:
    p, q = np.array(weights).T + 1e-12
    p, q = p / p.sum(), q / q.sum()
    frame = pl.DataFrame({"one": [p.tolist()], "other": [q.tolist()]}).lazy()
    there = frame.select(one_minus_jsd(ONE, OTHER)).collect().item()
    back = frame.select(one_minus_jsd(OTHER, ONE)).collect().item()
    middle = (p + q) / 2
    expected = 1 - (p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2
    assert 0.0 <= there <= 1.0
    assert there == pytest.approx(back, abs=1e-14)
    assert there == pytest.approx(expected, abs=1e-12)


def test_lists_of_different_lengths_are_averaged_option_by_option() -> None:
    rows = pl.DataFrame({"key": [1, 1, 2, 2, 3], "probs": [[0.2, 0.8], [0.4, 0.6], [0.2, 0.3, 0.5], None, None]})
    means = rows.lazy().group_by("key").agg(mean_by_option(["probs"], 3)).with_columns(as_lists(["probs"], 3)).sort("key").collect()
    first, second, third = means["probs"].to_list()
    assert first == pytest.approx([0.3, 0.7])
    assert second == pytest.approx([0.2, 0.3, 0.5])
    assert third is None
