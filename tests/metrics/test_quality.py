"""Rates that say whether the answers can be trusted, and whether they are right."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.quality import METRICS, correct
from wdct_dist.metrics.sides import over_orders, side_by_side, widen

KEYS = ["item_id", "trial"]


def judged(tables: Any, num_options: int = 2) -> pl.DataFrame:
    wide = widen(derive(*tables.lazy()), num_options)
    described = pl.DataFrame(tables.items).lazy().select("item_id", "correct_option", suspicious=pl.col("flags").list.len() > 0)
    table = side_by_side(over_orders(wide, num_options, KEYS), KEYS).join(described, on="item_id")
    return correct(table, num_options).collect(engine="streaming").sort(KEYS)


def figures(tables: Any) -> dict[str, tuple[float | None, int]]:
    """Value and n (items with a value) of each metric."""
    found: dict[str, tuple[float | None, int]] = {}
    for name, ratio in METRICS.items():
        added = judged(tables).group_by("item_id").agg(above=ratio.numerator, below=ratio.denominator.cast(pl.Float64))
        below = added["below"].sum()
        found[name] = (added["above"].sum() / below if below else None, (added["below"] > 0).sum())
    return found


def test_ten_answers_worked_by_hand(ten: Any) -> None:
    assert figures(ten) == {
        # debiased answers: words 0, 1, a tie; deeds 0, 1, none; correct are 0, 0, 1
        "accuracy_word": (pytest.approx((1 + 0 + 0.5) / 3), 3),
        "accuracy_deed": (0.5, 2),
        "parse_rate": (0.9, 3),
        "refusal_rate": (None, 0),
        "label_mass": (pytest.approx((1.0 + 0.8 + 0.6 + 0.4 + 5 * 0.9) / 9), 3),
        "tie_rate": (pytest.approx(2 / 9), 3),
        "suspicious_rate": (pytest.approx(1 / 3), 3),
        "position_word": (0.625, 2),
        "position_deed": (0.75, 2),
        "position_first_word": (0.625, 2),
        "position_first_deed": (0.25, 2),
        "position_last_word": (0.375, 2),
        "position_last_deed": (0.75, 2),
    }


def test_a_correct_option_among_tied_ones_is_neither_right_nor_wrong(ten: Any) -> None:
    found = judged(ten).select("word_correct", "deed_correct", "expected_word_correct").rows()
    assert found == [(True, True, 1.0), (False, False, 0.0), (None, None, 0.5)]


def test_an_item_without_a_correct_option_is_not_judged(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("a", "deed", (0, 1), (0.9, 0.1))])
    assert judged(made).select("word_correct", "deed_correct").row(0) == (None, None)
    assert figures(made)["accuracy_word"] == (None, 0)


def test_a_label_mass_that_the_engine_did_not_give_is_left_out_of_the_mean(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.9, 0.1), label_mass=None), ask("a", "deed", (0, 1), (0.9, 0.1), label_mass=0.4)])
    assert figures(made)["label_mass"] == (pytest.approx(0.4), 1)


def test_a_checkpoint_that_always_answers_the_first_label_has_position_1(ask: Any, tables: Any) -> None:
    asked = [
        ask(name, side, order, (0.9, 0.1) if order[0] == 0 else (0.1, 0.9))
        for name in ("a", "b")
        for side in ("word", "deed")
        for order in ((0, 1), (1, 0))
    ]
    found = figures(tables(asked))
    assert (found["position_word"], found["position_first_word"], found["position_last_word"]) == ((1.0, 2), (1.0, 2), (0.0, 2))
