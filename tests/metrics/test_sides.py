"""An item's side over its orders."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.sides import KEYS, over_orders, side_by_side, widen

NAMES = [key for key in KEYS if key != "checkpoint_id"]


def sides(tables: Any, num_options: int = 2) -> pl.DataFrame:
    wide = widen(derive(*tables.lazy()), num_options)
    return over_orders(wide, num_options, NAMES).collect(engine="streaming").sort("item_id", "side", "trial")


def test_ten_answers_worked_by_hand(ten: Any) -> None:
    found = sides(ten)
    assert found.select("item_id", "side", "option", "tie", "stable", "num_prompts", "num_answers", "num_ties", "parse_status").rows() == [
        ("a", "word", 0, False, True, 2, 2, 0, "ok"),
        ("a", "deed", 0, False, False, 2, 2, 0, "ok"),
        ("b", "word", 1, False, False, 2, 2, 1, "ok"),
        ("b", "deed", 1, False, True, 2, 2, 0, "ok"),
        ("c", "word", None, True, None, 1, 1, 1, "ok"),
        ("c", "deed", None, None, None, 1, 0, 0, "error"),
    ]
    by_hand = [
        # p0, p1, s0, s1, d0, d1, label mass
        (0.7, 0.3, 1.0, 0.0, 1.0, 0.0, 0.9),
        (0.6, 0.4, 0.5, 0.5, 1.0, 0.0, 0.5),
        (0.35, 0.65, 0.25, 0.75, 0.0, 1.0, 0.9),
        (0.2, 0.8, 0.0, 1.0, 0.0, 1.0, 0.9),
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9),
    ]
    figures = found.select("p0", "p1", "s0", "s1", "d0", "d1", "label_mass").rows()
    assert figures[:5] == [pytest.approx(row) for row in by_hand]
    assert figures[5] == (None,) * 7


def test_position_is_known_where_orders_are_balanced(ten: Any) -> None:
    assert sides(ten).select("position", "position_first", "position_last").rows() == [
        (0.5, 0.5, 0.5),
        (1.0, 0.0, 1.0),
        (0.75, 0.75, 0.25),
        (0.5, 0.5, 0.5),
        (None, None, None),
        (None, None, None),
    ]


def test_a_label_in_the_middle_is_a_position_too(ask: Any, tables: Any) -> None:
    rotations = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    # always label 1
    asked = [ask("a", "word", order, tuple(0.8 if i == order[1] else 0.1 for i in range(3))) for order in rotations]
    found = sides(tables(asked), 3)
    assert found.select("position", "position_first", "position_last").row(0) == (1.0, 0.0, 0.0)


def test_a_side_without_all_its_orders_is_neither_stable_nor_unstable(ask: Any, tables: Any) -> None:
    asked = [
        ask("a", "word", (0, 1), (0.9, 0.1)),
        ask("a", "word", (1, 0), None, error="?"),
        ask("b", "word", (0, 1), (0.9, 0.1)),
        ask("b", "word", (1, 0), (0.9, 0.1)),
    ]
    found = sides(tables(asked))
    assert found.select("item_id", "stable", "parse_status", "num_answers").rows() == [("a", None, "partial", 1), ("b", True, "ok", 2)]
    assert found["position"].to_list() == [None, 0.5]


def test_an_answer_that_is_tied_in_every_order_is_not_stable(ask: Any, tables: Any) -> None:
    asked = [ask("a", "word", (0, 1), (0.5, 0.5)), ask("a", "word", (1, 0), (0.5, 0.5))]
    assert sides(tables(asked))["stable"].to_list() == [False]


def test_opposite_answers_of_equal_strength_tie_after_averaging(ask: Any, tables: Any) -> None:
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    probs = [(0.7, 0.2, 0.1), (0.1, 0.7, 0.2), (0.2, 0.1, 0.7)]
    found = sides(tables([ask("a", "word", order, given) for order, given in zip(orders, probs, strict=True)]), 3)
    assert found.select("tie", "option", "num_ties").row(0) == (True, None, 0)


def test_the_worst_status_is_that_of_a_side_without_answers(ask: Any, tables: Any) -> None:
    asked = [ask("a", "word", (0, 1), None, error="?"), ask("a", "word", (1, 0), None)]
    assert sides(tables(asked))["parse_status"].to_list() == ["error"]


def test_a_side_that_was_not_asked_is_null_beside_the_other(ask: Any, tables: Any) -> None:
    wide = widen(derive(*tables([ask("a", "deed", (0, 1), (0.9, 0.1))]).lazy()), 2)
    found = side_by_side(over_orders(wide, 2, NAMES), NAMES).collect()
    assert found.select("item_id", "deed_option", "word_option", "word_num_prompts").rows() == [("a", 0, None, None)]
