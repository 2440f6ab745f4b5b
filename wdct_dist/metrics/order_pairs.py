"""An item over all pairs of a word order and a deed order: PCS, and what the same and what different orders do to CS and PCS.

A checkpoint that follows the label's place and not the option agrees with itself where both questions show their options in the
same order, and with nothing where they do not. CS over all pairs is then chance, and says so only to those who look at both halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.probability import one_minus_jsd
from wdct_dist.metrics.sides import KEYS

MEASURES = {"cs": "match", "pcs": "pcs"}
"""Metric to column of scores/items.arrow."""

LEVELS = ("same", "different")
"""Of a pair's two orders. The columns are `match_same_order`, `match_different_order`, `pcs_same_order`, `pcs_different_order`."""


def over_pairs(wide: pl.LazyFrame, num_options: int, keys: Sequence[str] = KEYS) -> pl.LazyFrame:
    """One row for each of `keys` that has answers on both sides; values are 0 to 1, means over pairs that have answers.

    - `pcs`: over all (word order, deed order) pairs. Null where an answer of either side has no probabilities: the pairs that have
      them do not stand for the others.
    - `match_{level}_order`, `pcs_{level}_order`: over the pairs of one of `LEVELS`; null where there is no such pair.

    `wide` as `sides.widen` returns it. Rows in between: the pairs, (orders of the word side) * (orders of the deed side) an item.
    """
    answered = wide.filter(pl.col("parse_status") == "ok")
    # the last option's place is where the others are not
    told = [*(f"p{i}" for i in range(num_options)), *(f"s{i}" for i in range(num_options)), *(f"o{j}" for j in range(num_options - 1))]

    def one(side: str) -> pl.LazyFrame:
        return answered.filter(pl.col("side") == side).select(*keys, *(pl.col(name).alias(f"{side}_{name}") for name in told))

    pairs = (
        one("word")
        .join(one("deed"), on=list(keys))
        .select(
            *keys,
            pcs=one_minus_jsd(num_options),
            match=pl.sum_horizontal(pl.col(f"word_s{i}") * pl.col(f"deed_s{i}") for i in range(num_options)),
            same=pl.all_horizontal(pl.col(f"word_o{j}") == pl.col(f"deed_o{j}") for j in range(num_options - 1)),
        )
    )
    known = pl.col("pcs").is_not_null().all()
    halves = {"same": pl.col("same"), "different": ~pl.col("same")}
    return pairs.group_by(*keys).agg(
        pl.when(known).then(exact_mean(pl.col("pcs"))).alias("pcs"),
        *(exact_mean(pl.when(halves[level]).then("match")).alias(f"match_{level}_order") for level in LEVELS),
        *(pl.when(known).then(exact_mean(pl.when(halves[level]).then("pcs"))).alias(f"pcs_{level}_order") for level in LEVELS),
    )
