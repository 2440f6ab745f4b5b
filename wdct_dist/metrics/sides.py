"""An item's side over its orders: one row for each item, trial and side, then word beside deed.

Everything here is for items of one k, with one column an option (`p0` … `p{k-1}`): plain columns are what a streaming engine
is fast at.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wdct_dist.metrics.derive import PARSE_STATUSES
from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.parsed import COUNTS

KEYS = ("checkpoint_id", "variant", "language", "trial", "item_id")
"""What names a row of scores/items.arrow."""

TIE_TOLERANCE = 1e-9
"""Mean probabilities that are this near to each other are a tie.

Rounding of a float64 mean is about 1e-16, and a float32 engine's log-probabilities are good to 1e-7: what is nearer than this
was decided by arithmetic, not by the checkpoint.
"""


def widen(answers: pl.LazyFrame, num_options: int) -> pl.LazyFrame:
    """The derived answers (`derive`) with k = `num_options`, lists as columns.

    `p{i}` and `s{i}` are probability and share of option i, `at{j}` is the share of the answer at label j, `first` is the option
    shown at label 0; null where there is no answer. `o{j}` is the option shown at label j.
    """
    options = range(num_options)
    permutation = pl.col("permutation")
    return (
        answers.filter(pl.col("num_options") == num_options)
        .with_columns(
            *(pl.col("probs").list.get(i).alias(f"p{i}") for i in options),
            *(pl.col("shares").list.get(i).alias(f"s{i}") for i in options),
            *(pl.col("shares").list.get(permutation.list.get(j)).alias(f"at{j}") for j in options),
            *(permutation.list.get(j).alias(f"o{j}") for j in options),
            first=pl.when(pl.col("parse_status") == "ok").then(permutation.list.get(0)),
        )
        .drop("probs", "shares", "permutation")
    )


def over_orders(wide: pl.LazyFrame, num_options: int, keys: Sequence[str] = KEYS) -> pl.LazyFrame:
    """One row for each of `keys` and side; `wide` as `widen` returns it. Means are over the orders that have an answer.

    - `num_prompts`, `num_answers`, `num_ties`, `num_refused`, `num_refusable`, `num_masses`: counts of prompts.
    - `num_read`, `num_agreeing`, `num_compared`: see `parsed`.
    - `p{i}`, `s{i}`: mean probability and mean share of option i. The first is null where an answer of any order has no probabilities:
      those that have them, which are the less certain ones, do not stand for the others.
    - `d{i}`: the debiased answer: 1 at the option with the largest mean probability, shared evenly between tied ones. Where answers decide
      (`by_share`), the option that most of the orders chose.
    - `option`: the index of that option, null where it is a tie; `tie`: whether it is.
    - `stable`: whether all orders have the same answer; see `stability`.
    - `position`, `position_first`, `position_last`: see `quality`.
    - `label_mass`: mean; `parse_status`: `ok` where all orders have an answer, `partial` where some have, else the worst.
    """
    options = range(num_options)
    answered = pl.col("num_answers") > 0
    balanced = answered & (pl.min_horizontal(_each("first", options)) == pl.max_horizontal(_each("first", options)))
    weights = [pl.when("by_share").then(f"s{i}").otherwise(f"p{i}") for i in options]
    tops = [(weight >= pl.col("top") - TIE_TOLERANCE).cast(pl.Float64) for weight in weights]
    num_tops = pl.sum_horizontal(tops)
    gathered = wide.group_by(*keys, "side").agg(
        *(pl.when(all_known("p0", pl.col("parse_status") == "ok")).then(exact_mean(pl.col(f"p{i}"))).alias(f"p{i}") for i in options),
        *(exact_mean(pl.col(f"s{i}")) for i in options),
        *(pl.col(f"s{i}").min().alias(f"least{i}") for i in options),
        *(exact_mean(pl.col(f"at{j}")) for j in options),
        *((pl.col("first") == i).sum().alias(f"first{i}") for i in options),
        exact_mean(pl.col("label_mass")),
        by_share=pl.col("by_share").any(),
        num_masses=pl.col("label_mass").count(),
        num_prompts=pl.len(),
        num_answers=(pl.col("parse_status") == "ok").sum(),
        num_ties=pl.col("tie").sum(),
        num_refused=pl.col("refused").sum(),
        num_refusable=pl.col("refused").count(),
        **COUNTS,
        worst=pl.col("parse_status").to_physical().max(),
    )
    same = pl.max_horizontal(_each("least", options)) == 1
    return (
        gathered.with_columns(top=pl.max_horizontal(weights))
        .with_columns(
            *(pl.when(answered).then(top / num_tops).alias(f"d{i}") for i, top in enumerate(tops)),
            tie=pl.when(answered).then(num_tops > 1),
            option=pl.when(answered & (num_tops == 1)).then(pl.sum_horizontal([i * top for i, top in enumerate(tops)])).cast(pl.Int8),
            stable=pl.when((pl.col("num_prompts") > 1) & (pl.col("num_answers") == pl.col("num_prompts"))).then(same),
            position=pl.when(balanced).then(pl.max_horizontal(_each("at", options))),
            position_first=pl.when(balanced).then("at0"),
            position_last=pl.when(balanced).then(f"at{num_options - 1}"),
            parse_status=pl.when(answered & (pl.col("num_answers") < pl.col("num_prompts")))
            .then(pl.lit("partial"))
            .otherwise(_status_name(pl.col("worst"))),
        )
        .select(
            *keys,
            "side",
            *_each("p", options),
            *_each("s", options),
            *_each("d", options),
            "option",
            "tie",
            "stable",
            "position",
            "position_first",
            "position_last",
            "label_mass",
            "parse_status",
            *(name for name in gathered.collect_schema() if name.startswith("num_")),
        )
    )


def all_known(column: str, answered: pl.Expr) -> pl.Expr:
    """Of a group: whether every row that has an answer has a value in the column."""
    return pl.col(column).is_not_null().sum() == answered.sum()


def side_by_side(sides: pl.LazyFrame, keys: Sequence[str] = KEYS) -> pl.LazyFrame:
    """One row for each of `keys`: the columns of `over_orders` with `word_` and `deed_` before them.

    Null where an item was not asked on that side.
    """

    def one(side: str) -> pl.LazyFrame:
        renamed = pl.exclude(*keys, "side").name.prefix(f"{side}_")
        return sides.filter(pl.col("side") == side).select(*keys, renamed)

    return one("word").join(one("deed"), on=list(keys), how="full", coalesce=True)


def _each(prefix: str, options: range) -> list[str]:
    return [f"{prefix}{i}" for i in options]


def _status_name(code: pl.Expr) -> pl.Expr:
    return code.replace_strict(dict(enumerate(PARSE_STATUSES)), return_dtype=pl.String)
