"""Whether an answer survives another trial; other orders are tested with the sides."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.sides import over_orders, side_by_side, widen
from wdct_dist.metrics.stability import trial_agreement

KEYS = ["item_id", "trial"]


def agreement(tables: Any, num_options: int = 2) -> pl.DataFrame:
    wide = widen(derive(*tables.lazy()), num_options)
    table = trial_agreement(side_by_side(over_orders(wide, num_options, KEYS), KEYS), num_options, KEYS)
    return table.collect(engine="streaming").sort(KEYS)


def test_ten_answers_worked_by_hand(ask: Any, tables: Any) -> None:
    order = (0, 1)
    zero, one, tie = (0.9, 0.1), (0.1, 0.9), (0.5, 0.5)
    asked = [
        # words 0, 0, 1: one pair of three agrees. Deeds 1, 1, a tie: (1 + 0.5 + 0.5) / 3
        *(ask("a", "word", order, probs, trial=trial) for trial, probs in enumerate((zero, zero, one))),
        *(ask("a", "deed", order, probs, trial=trial) for trial, probs in enumerate((one, one, tie))),
        # one pair is left, and it agrees; on the other side no pair is left
        *(ask("b", "word", order, probs, trial=trial) for trial, probs in enumerate((zero, None, zero))),
        ask("b", "deed", order, zero, trial=0),
    ]
    found = agreement(tables(asked))
    assert found["word_agreement"].to_list() == pytest.approx([1 / 3] * 3 + [1.0] * 3)
    assert found["deed_agreement"].to_list()[:3] == pytest.approx([2 / 3] * 3)
    assert found["deed_agreement"].to_list()[3:] == [None] * 3


def test_one_trial_agrees_with_nothing(ask: Any, tables: Any) -> None:
    found = agreement(tables([ask("a", "word", (0, 1), (0.9, 0.1)), ask("a", "deed", (0, 1), (0.9, 0.1))]))
    assert found.select("word_agreement", "deed_agreement").row(0) == (None, None)


def test_three_options_that_take_turns_never_agree(ask: Any, tables: Any) -> None:
    asked = [
        ask("a", side, (0, 1, 2), tuple(0.8 if option == trial else 0.1 for option in range(3)), trial=trial)
        for trial in range(3)
        for side in ("word", "deed")
    ]
    assert agreement(tables(asked), 3)["word_agreement"].to_list() == [0.0] * 3
