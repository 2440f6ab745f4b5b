"""Consistency: whether words and deeds choose the same option."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.consistency import METRICS, match, match_debiased
from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.sides import over_orders, side_by_side, widen

KEYS = ["item_id", "trial"]


def items(tables: Any, num_options: int = 2) -> pl.DataFrame:
    wide = widen(derive(*tables.lazy()), num_options)
    table = side_by_side(over_orders(wide, num_options, KEYS), KEYS)
    return match_debiased(match(table, num_options), num_options).collect(engine="streaming").sort(KEYS)


def test_ten_answers_worked_by_hand(ten: Any) -> None:
    found = items(ten).select("item_id", "match", "match_debiased", "expected_match_debiased").rows()
    # a: words 0, 0; deeds 1, 0: two of four pairs. b: words a tie, then 1; deeds 1, 1: (0.5 + 0.5 + 1 + 1) / 4.
    assert found == [("a", 0.5, True, 1.0), ("b", 0.75, True, 1.0), ("c", None, None, None)]


def test_orders_without_an_answer_leave_the_pairs_that_exist(ask: Any, tables: Any) -> None:
    asked = [
        ask("a", "word", (0, 1), (0.9, 0.1)),
        ask("a", "word", (1, 0), None, error="?"),
        ask("a", "deed", (0, 1), (0.9, 0.1)),
        ask("a", "deed", (1, 0), (0.2, 0.8)),
    ]
    assert items(tables(asked))["match"].to_list() == [0.5]


def test_a_tie_on_both_sides_matches_by_half(ask: Any, tables: Any) -> None:
    asked = [ask("a", "word", (0, 1), (0.5, 0.5)), ask("a", "deed", (0, 1), (0.5, 0.5))]
    assert items(tables(asked)).select("match", "match_debiased", "expected_match_debiased").row(0) == (0.5, None, 0.5)


def test_a_tie_among_other_options_is_a_difference_for_certain(ask: Any, tables: Any) -> None:
    asked = [ask("a", "word", (0, 1, 2), (0.4, 0.4, 0.2)), ask("a", "deed", (0, 1, 2), (0.1, 0.1, 0.8))]
    assert items(tables(asked), 3).select("match", "match_debiased").row(0) == (0.0, False)


def test_averaging_over_orders_removes_a_preference_for_the_first_label(ask: Any, tables: Any) -> None:
    # The first label always wins, but option 1 loses less: the answer is 1 on both sides.
    asked = [ask("a", side, order, probs) for side in ("word", "deed") for order, probs in (((0, 1), (0.6, 0.4)), ((1, 0), (0.1, 0.9)))]
    assert items(tables(asked)).select("match", "match_debiased").row(0) == (0.5, True)


def figures(rows: list[dict[str, Any]]) -> dict[str, tuple[float | None, int]]:
    """Value and n of each metric over items of one trial, from their rows."""
    defaults = {"num_options": 2, "match": None, "expected_match_debiased": None, "word_stable": None, "deed_stable": None}
    table = pl.DataFrame(
        [defaults | row for row in rows],
        schema={
            "item": pl.Int64,
            "num_options": pl.Int64,
            "match": pl.Float64,
            "expected_match_debiased": pl.Float64,
            "word_stable": pl.Boolean,
            "deed_stable": pl.Boolean,
        },
    )
    found: dict[str, tuple[float | None, int]] = {}
    for name, ratio in METRICS.items():
        added = table.group_by("item").agg(above=ratio.numerator, below=ratio.denominator.cast(pl.Float64))
        below = added["below"].sum()
        found[name] = (added["above"].sum() / below if below else None, (added["below"] > 0).sum())
    return found


def test_cs_is_the_mean_over_items_that_have_answers_and_its_bounds_are_over_all() -> None:
    found = figures([{"item": 1, "match": 1.0}, {"item": 2, "match": 0.5}, {"item": 3}, {"item": 4, "match": 0.0}])
    assert found["cs"] == (0.5, 3)
    assert found["cs_lower"] == (0.375, 4)
    assert found["cs_upper"] == (0.625, 4)


def test_chance_is_the_mean_of_one_over_the_number_of_options() -> None:
    found = figures([{"item": 1, "num_options": 2}, {"item": 2, "num_options": 4}])
    assert found["cs_chance"] == (0.375, 2)


def test_stable_cs_counts_items_that_are_stable_on_both_sides() -> None:
    found = figures(
        [
            {"item": 1, "match": 1.0, "word_stable": True, "deed_stable": True},
            {"item": 2, "match": 0.0, "word_stable": True, "deed_stable": True},
            {"item": 3, "match": 1.0, "word_stable": True, "deed_stable": True},
            {"item": 4, "match": 0.5, "word_stable": True, "deed_stable": False},
            {"item": 5, "match": 0.5, "word_stable": None, "deed_stable": True},
        ]
    )
    assert found["cs_stable"] == (pytest.approx(2 / 3), 3)


def test_the_trials_of_an_item_are_averaged_first() -> None:
    found = figures([{"item": 1, "match": 1.0}, {"item": 1, "match": 0.0}, {"item": 1, "match": None}, {"item": 2, "match": 1.0}])
    assert found["cs"] == (0.75, 2)


def test_without_answers_cs_is_undefined() -> None:
    found = figures([{"item": 1}])
    assert (found["cs"], found["cs_stable"], found["cs_debiased"]) == ((None, 0), (None, 0), (None, 0))
    assert (found["cs_lower"], found["cs_upper"]) == ((0.0, 1), (1.0, 1))
