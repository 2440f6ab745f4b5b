"""Probability consistency score (PCS): 1 - JSD between the option probabilities of words and deeds.

JSD is the Jensen-Shannon divergence in base 2, so PCS lies in [0, 1]: JSD(p, q) = H(m) - (H(p) + H(q)) / 2 with m = (p + q) / 2
and 0 * log 0 = 0. It is not linear in p and q, so the mean over pairs of orders needs every pair: see `order_pairs`.
"""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.ratio import Ratio, mean_of_items


def pcs_debiased(items: pl.LazyFrame, num_options: int) -> pl.LazyFrame:
    """Adds `pcs_debiased`: 1 - JSD between the probabilities averaged over orders. Null where a side has no answer.

    `items` as `sides.side_by_side` returns it, all with k = `num_options`.
    """
    return items.with_columns(pcs_debiased=one_minus_jsd(num_options))


def one_minus_jsd(num_options: int) -> pl.Expr:
    """Of the columns `word_p{i}` and `deed_p{i}`, 0 to 1; null where one of them is."""
    total = pl.lit(0.0)
    for option in range(num_options):
        word, deed = pl.col(f"word_p{option}"), pl.col(f"deed_p{option}")
        total = total + (_x_log_x(word) + _x_log_x(deed)) / 2 - _x_log_x((word + deed) / 2)
    # Rounding leaves values such as -2e-16.
    return 1 - total.clip(0.0, 1.0)


def _x_log_x(x: pl.Expr) -> pl.Expr:
    return pl.when(x > 0).then(x * x.log(2)).when(x == 0).then(0.0)


METRICS: dict[str, Ratio] = {
    "pcs": mean_of_items(pl.col("pcs")),
    "pcs_debiased": mean_of_items(pl.col("pcs_debiased")),
}
