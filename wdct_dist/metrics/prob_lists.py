"""Answers from lists of option probabilities, as they stand in scores/items.arrow: one expression for every number of options.

`sides`, `consistency` and `probability` do the same on one column an option, where answers are first worked on; what compares
scores afterwards (trials, languages, families of variants) starts from the lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.sides import TIE_TOLERANCE


def answer_shares(probs: pl.Expr) -> pl.Expr:
    """List of k: 1 at the most probable option, shared evenly between tied ones. Null where `probs` is.

    Ties as in `sides.over_orders`: what is nearer than `TIE_TOLERANCE` was decided by arithmetic.
    """
    tops = (probs - probs.list.max()).list.eval((pl.element() >= -TIE_TOLERANCE).cast(pl.Float64))
    return tops / tops.list.sum()


def same_option(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    """Probability that two answers, given as shares, are the same option, 0 to 1. Null where one of them is."""
    return (one * other).list.sum()


def one_minus_jsd(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    """1 - Jensen-Shannon divergence in base 2, 0 to 1, of two lists of probabilities; see `probability`."""
    middle = (one + other) / 2
    return 1 - ((_sum_x_log_x(one) + _sum_x_log_x(other)) / 2 - _sum_x_log_x(middle)).clip(0.0, 1.0)


def _sum_x_log_x(probs: pl.Expr) -> pl.Expr:
    x = pl.element()
    return probs.list.eval(pl.when(x > 0).then(x * x.log(2)).otherwise(0.0)).list.sum()


def mean_by_option(columns: Sequence[str], max_options: int) -> list[pl.Expr]:
    """Aggregations: the mean of each list column, option by option, as `{column}.{option}`; `as_lists` puts them together again."""
    return [
        exact_mean(pl.col(column).list.get(option, null_on_oob=True)).alias(f"{column}.{option}")
        for column in columns
        for option in range(max_options)
    ]


def as_lists(columns: Sequence[str], max_options: int) -> list[pl.Expr]:
    """The columns of `mean_by_option` as lists of k; null where the item has none."""
    return [
        pl.when(pl.col(f"{column}.0").is_not_null())
        .then(pl.concat_list(f"{column}.{option}" for option in range(max_options)).list.drop_nulls())
        .alias(column)
        for column in columns
    ]
