"""Sums that do not depend on the order of their terms."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from wdct_dist.metrics.exact_sum import exact_mean, exact_sum

# (0.1 + 0.2) + 0.3 and 0.1 + (0.2 + 0.3) are different floats
DRAWS = random.Random(4)
TERMS = [DRAWS.random() for _ in range(200)]


def summed(terms: list[float | None], expression: pl.Expr) -> float | None:
    frame = pl.DataFrame({"x": terms}, schema={"x": pl.Float64})
    return frame.lazy().select(expression).collect(engine="streaming").item()


def test_any_order_gives_the_same_sum_where_floats_do_not() -> None:
    shuffled = [random.Random(seed).sample(TERMS, len(TERMS)) for seed in range(20)]
    assert len({np.cumsum(terms)[-1] for terms in shuffled}) > 1
    assert len({summed(terms, exact_sum(pl.col("x"))) for terms in shuffled}) == 1
    assert len({summed(terms, exact_mean(pl.col("x"))) for terms in shuffled}) == 1


def test_the_sum_is_right_to_twelve_digits() -> None:
    assert summed(TERMS, exact_sum(pl.col("x"))) == pytest.approx(sum(TERMS), rel=1e-12)


def test_nulls_are_left_out_of_a_mean_and_a_mean_of_nothing_is_null() -> None:
    assert summed([0.5, None, 1.0], exact_mean(pl.col("x"))) == 0.75
    assert summed([None, None], exact_mean(pl.col("x"))) is None
    assert summed([], exact_mean(pl.col("x"))) is None
    assert summed([None], exact_sum(pl.col("x"))) == 0.0


def test_ones_halves_and_zeros_are_exact() -> None:
    assert summed([1.0, 0.5, 0.0, 0.5], exact_mean(pl.col("x"))) == 0.5
