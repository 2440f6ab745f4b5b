"""Stability: whether an answer survives another order of the options, and another trial.

`word_stable` and `deed_stable` (`sides.over_orders`) are true where every order has the same single option for an answer. A tie
counts as not stable: it is no answer that could survive. They are null where they cannot be known: with one order only, and
where an order has no answer (to keep only those that already differ would make the rate too low).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wdct_dist.metrics.exact_sum import exact_sum
from wdct_dist.metrics.ratio import Ratio, mean_of_items
from wdct_dist.metrics.sides import KEYS


def trial_agreement(items: pl.LazyFrame, num_options: int, keys: Sequence[str] = KEYS) -> pl.LazyFrame:
    """Adds `word_agreement` and `deed_agreement`: share of the pairs of different trials with the same answer, 0 to 1.

    `items` as `sides.side_by_side` returns it, all with k = `num_options`; every trial of an item gets the item's value. The
    answer is the one over all orders (`word_option`); tied options share it evenly. Null with fewer than two trials that have
    an answer. Over pairs t < u, the sum of d_t * d_u is (|sum of d|² - sum of |d|²) / 2, so no pair is formed.
    """
    item = [key for key in keys if key != "trial"]

    def agreement(side: str) -> pl.Expr:
        num_trials = pl.col(f"{side}_d0").count().cast(pl.Float64)
        products = pl.lit(0.0)
        for option in range(num_options):
            share = pl.col(f"{side}_d{option}")
            products = products + exact_sum(share).pow(2) - exact_sum(share.pow(2))
        return pl.when(num_trials > 1).then(products / (num_trials * (num_trials - 1))).alias(f"{side}_agreement")

    return items.join(items.group_by(*item).agg(agreement("word"), agreement("deed")), on=item, how="left")


METRICS: dict[str, Ratio] = {
    "stable_word": mean_of_items(pl.col("word_stable").cast(pl.Float64)),
    "stable_deed": mean_of_items(pl.col("deed_stable").cast(pl.Float64)),
    "trial_agreement": mean_of_items(pl.mean_horizontal("word_agreement", "deed_agreement")),
}
