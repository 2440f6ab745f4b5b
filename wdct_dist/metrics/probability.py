"""Probability consistency score (PCS): 1 - JSD between the option probabilities of words and deeds.

JSD is the Jensen-Shannon divergence in base 2, so PCS lies in [0, 1]: JSD(p, q) = H(m) - (H(p) + H(q)) / 2 with m = (p + q) / 2
and 0 * log 0 = 0. It is not linear in p and q, so the mean over pairs of orders needs every pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.ratio import Ratio, mean_of_items
from wdct_dist.metrics.sides import KEYS


def pcs(wide: pl.LazyFrame, num_options: int, keys: Sequence[str] = KEYS) -> pl.LazyFrame:
    """One row for each of `keys` that has answers on both sides: `pcs`, the mean over all (word order, deed order) pairs.

    Null where an answer of either side has no probabilities: the pairs that have them do not stand for the others.

    `wide` as `sides.widen` returns it. Rows in between: the pairs, (orders of the word side) * (orders of the deed side) an item.
    """
    answered = wide.filter(pl.col("parse_status") == "ok")

    def one(side: str) -> pl.LazyFrame:
        probs = [pl.col(f"p{i}").alias(f"{side}_p{i}") for i in range(num_options)]
        return answered.filter(pl.col("side") == side).select(*keys, *probs)

    pairs = one("word").join(one("deed"), on=list(keys)).select(*keys, pcs=_one_minus_jsd(num_options))
    known = pl.col("pcs").is_not_null().all()
    return pairs.group_by(*keys).agg(pl.when(known).then(exact_mean(pl.col("pcs"))).alias("pcs"))


def pcs_debiased(items: pl.LazyFrame, num_options: int) -> pl.LazyFrame:
    """Adds `pcs_debiased`: 1 - JSD between the probabilities averaged over orders. Null where a side has no answer.

    `items` as `sides.side_by_side` returns it, all with k = `num_options`.
    """
    return items.with_columns(pcs_debiased=_one_minus_jsd(num_options))


def _one_minus_jsd(num_options: int) -> pl.Expr:
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
