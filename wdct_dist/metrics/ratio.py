"""A metric as a ratio: what each item adds above and below the line.

Value = sum of numerators / sum of denominators over the items; null where the denominators sum to 0. So an item without a value
adds nothing on either side, and a resample of the items is a weighted sum on both sides with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from wdct_dist.metrics.exact_sum import exact_mean, exact_sum


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two aggregations over an item's rows (its trials), as `group_by(…).agg` takes them."""

    numerator: pl.Expr
    denominator: pl.Expr


def mean_of_items(value: pl.Expr) -> Ratio:
    """The mean over items of an item's mean over its trials: every item with a value weighs the same."""
    return Ratio(exact_mean(value).fill_null(0.0), (value.count() > 0).cast(pl.Float64))


def pooled(numerator: pl.Expr, denominator: pl.Expr) -> Ratio:
    """A share of something that an item has many of, such as prompts: each of those weighs the same."""
    return Ratio(exact_sum(numerator), denominator.cast(pl.Float64).sum())


def both_sides(name: str) -> pl.Expr:
    """A count of both sides together; a side that was not asked counts 0."""
    return pl.sum_horizontal(f"word_{name}", f"deed_{name}")
