"""Probability consistency: 1 - JSD in base 2."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.order_pairs import over_pairs
from wdct_dist.metrics.probability import pcs_debiased
from wdct_dist.metrics.sides import over_orders, side_by_side, widen

KEYS = ["item_id", "trial"]


def items(tables: Any, num_options: int = 2) -> pl.DataFrame:
    wide = widen(derive(*tables.lazy()), num_options)
    table = pcs_debiased(side_by_side(over_orders(wide, num_options, KEYS), KEYS), num_options)
    return table.join(over_pairs(wide, num_options, KEYS), on=KEYS, how="left").collect(engine="streaming").sort(KEYS)


def test_ten_answers_worked_by_hand(ask: Any, tables: Any) -> None:
    # JSD of (1, 0) with (0, 1) is 1, with itself 0, with (0.5, 0.5) 0.311278; in the four pairs of a: 0, 1, 0.311278, 0.311278.
    first, second = (0, 1), (1, 0)
    asked = [
        ask("a", "word", first, (1.0, 0.0)),
        ask("a", "word", second, (0.5, 0.5)),
        ask("a", "deed", first, (1.0, 0.0)),
        ask("a", "deed", second, (0.0, 1.0)),
        ask("b", "word", first, (1.0, 0.0)),
        ask("b", "word", second, (1.0, 0.0)),
        ask("b", "deed", first, (0.0, 1.0)),
        ask("b", "deed", second, None, error="?"),
        ask("c", "word", first, (0.5, 0.5)),
        ask("c", "deed", first, None, error="?"),
    ]
    found = items(tables(asked))
    assert found["item_id"].to_list() == ["a", "b", "c"]
    assert found["pcs"].to_list() == [pytest.approx(1 - (0 + 1 + 2 * 0.311278) / 4, abs=1e-6), 0.0, None]
    # (0.75, 0.25) with (0.5, 0.5): H(0.625) - (H(0.75) + 1) / 2 = 0.954434 - 0.905639
    assert found["pcs_debiased"].to_list() == [pytest.approx(1 - 0.048795, abs=1e-6), 0.0, None]


def test_three_options_that_share_none_are_as_far_apart_as_two(ask: Any, tables: Any) -> None:
    asked = [ask("a", "word", (0, 1, 2), (0.0, 0.0, 1.0)), ask("a", "deed", (0, 1, 2), (0.5, 0.5, 0.0))]
    assert items(tables(asked), 3)["pcs"].to_list() == [pytest.approx(0.0, abs=1e-12)]


def test_the_mean_over_pairs_is_not_that_of_the_mean_probabilities(ask: Any, tables: Any) -> None:
    asked = [ask("a", side, order, probs) for side in ("word", "deed") for order, probs in (((0, 1), (1.0, 0.0)), ((1, 0), (0.0, 1.0)))]
    assert items(tables(asked)).select("pcs", "pcs_debiased").row(0) == (0.5, 1.0)


weights = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda values: sum(values) > 1e-3)


@settings(max_examples=40, deadline=None)
@given(word=st.lists(weights, min_size=1, max_size=3), deed=st.lists(weights, min_size=1, max_size=3), shift=st.integers(1, 2))
def test_pcs_is_in_0_to_1_symmetric_and_blind_to_the_names_of_options(ask: Any, tables: Any, word: Any, deed: Any, shift: int) -> None:
    rotations = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]

    def asked(item_id: str, first: Any, second: Any) -> list[Any]:
        return [
            ask(item_id, side, order, tuple(given))
            for side, orders in (("word", first), ("deed", second))
            for order, given in zip(rotations, orders, strict=False)
        ]

    def renamed(orders: Any) -> Any:
        return [given[shift:] + given[:shift] for given in orders]

    found = items(tables(asked("as is", word, deed) + asked("swapped", deed, word) + asked("renamed", renamed(word), renamed(deed))), 3)
    for column in ("pcs", "pcs_debiased"):
        as_is, other_names, swapped = found[column]
        assert 0.0 <= as_is <= 1.0
        assert swapped == as_is
        assert other_names == pytest.approx(as_is, abs=1e-12)
