"""What an answer says: probabilities, the chosen option, ties, and whether there is an answer."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.derive import derive


def derived(tables: Any) -> pl.DataFrame:
    return derive(*tables.lazy()).collect(engine="streaming").sort("prompt_id", "trial")


def test_ten_answers_worked_by_hand(ten: Any) -> None:
    found = derived(ten).select("item_id", "side", "shares", "tie", "parse_status", "label_mass").rows()
    assert found == [
        ("a", "deed", [0.0, 1.0], False, "ok", 0.6),
        ("a", "deed", [1.0, 0.0], False, "ok", 0.4),
        ("a", "word", [1.0, 0.0], False, "ok", 1.0),
        ("a", "word", [1.0, 0.0], False, "ok", 0.8),
        ("b", "deed", [0.0, 1.0], False, "ok", 0.9),
        ("b", "deed", [0.0, 1.0], False, "ok", 0.9),
        ("b", "word", [0.5, 0.5], True, "ok", 0.9),
        ("b", "word", [0.0, 1.0], False, "ok", 0.9),
        ("c", "deed", None, None, "error", None),
        ("c", "word", [0.5, 0.5], True, "ok", 0.9),
    ]
    assert derived(ten)["probs"][0].to_list() == pytest.approx([0.3, 0.7])


def test_probabilities_are_a_softmax_over_the_options_alone(ask: Any, tables: Any) -> None:
    # a tenth of the probability fell on the labels
    found = derived(tables([ask("a", "word", (0, 1), (0.06, 0.04))]))
    assert found["probs"][0].to_list() == pytest.approx([0.6, 0.4])


def test_very_small_probabilities_neither_overflow_nor_vanish(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.0, 0.0))])
    answers = made.lazy()[0].with_columns(option_logprobs=pl.Series([[-2000.0, -2001.0]]))
    found = derive(answers, made.lazy()[1]).collect()
    assert found["probs"][0].to_list() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


def test_three_tied_options_share_the_answer_in_thirds_and_a_lower_one_gets_none(ask: Any, tables: Any) -> None:
    found = derived(tables([ask("a", "word", (0, 1, 2, 3), (0.3, 0.1, 0.3, 0.3))]))
    assert found["shares"][0].to_list() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_nearly_equal_is_not_a_tie(ask: Any, tables: Any) -> None:
    found = derived(tables([ask("a", "word", (0, 1), (0.5, math.nextafter(0.5, 1)))]))
    assert found["tie"].to_list() == [False]


def test_items_with_different_numbers_of_options_go_through_together(ask: Any, tables: Any) -> None:
    found = derived(tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("b", "word", (2, 0, 1), (0.2, 0.3, 0.5))]))
    assert found["num_options"].to_list() == [2, 3]
    assert [len(probs) for probs in found["probs"]] == [2, 3]


@pytest.mark.parametrize(
    "logprobs",
    [None, [], [-1.0], [-1.0, -1.0, -1.0], [-1.0, None], [-1.0, -math.inf], [-1.0, math.nan], [-1.0, math.inf]],
    ids=["none", "empty", "too few", "too many", "null", "minus infinity", "not a number", "infinity"],
)
def test_log_probabilities_that_are_no_answer_are_invalid_never_a_number(ask: Any, tables: Any, logprobs: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.5, 0.5)), ask("b", "word", (0, 1), (0.9, 0.1))])
    answers, prompts = made.lazy()
    broken = answers.with_columns(option_logprobs=pl.Series([logprobs, [-0.1, -2.3]], dtype=pl.List(pl.Float64)))
    found = derive(broken, prompts).collect().sort("item_id")
    assert found["parse_status"].to_list() == ["invalid", "ok"]
    assert found.select("probs", "shares", "tie", "label_mass").row(0) == (None, None, None, None)


def test_an_error_counts_even_beside_log_probabilities(ask: Any, tables: Any) -> None:
    found = derived(tables([ask("a", "word", (0, 1), (0.9, 0.1), error="stopped half way")]))
    assert found.select("parse_status", "shares").row(0) == ("error", None)


def test_a_planned_prompt_without_a_row_is_missing(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("a", "deed", (0, 1), (0.9, 0.1))])
    answers, prompts = made.lazy()
    found = derive(answers.filter(pl.col("prompt_id").str.contains("word")), prompts).collect().sort("side")
    assert found.select("side", "parse_status").rows() == [("word", "ok"), ("deed", "missing")]


def test_every_trial_has_a_row_for_every_prompt(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("a", "word", (0, 1), (0.9, 0.1), trial=3)])
    assert derived(made).select("trial", "parse_status").rows() == [(0, "ok"), (3, "ok")]


def test_answers_to_prompts_that_are_not_planned_are_left_out(ask: Any, tables: Any) -> None:
    made = tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("b", "word", (0, 1), (0.9, 0.1))])
    answers, prompts = made.lazy()
    assert derive(answers, prompts.filter(pl.col("item_id") == "a")).collect()["item_id"].to_list() == ["a"]


def test_no_answers_give_no_rows(ten: Any) -> None:
    answers, prompts = ten.lazy()
    assert derive(answers.head(0), prompts).collect().height == 0
