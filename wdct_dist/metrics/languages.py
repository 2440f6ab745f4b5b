"""Agreement of a side with itself across languages: does a checkpoint give the same answer when it is asked in another language?

`agreement_word_en_zh` is the share of items whose word answer is the same option in both languages, among items that have an
answer in both; `agreement_deed_en_zh` is that of the deed answers. An answer is the most probable option over all orders, or what
the text says where that is the answer (`item_values.said`); tied options share it evenly, and so do the answers of different trials
(of which every pair is compared), so an item's agreement is an expected one, from 0 to 1. Two languages that answer at random agree
in 1/k. A family of variants has the mean over its members that have a value; so what it says is how far a language changes the
answer, not how far a wording does.
"""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.factors import family
from wdct_dist.metrics.figures import empty_summary, summary_rows
from wdct_dist.metrics.item_values import ASKING, said
from wdct_dist.metrics.panel import Asking
from wdct_dist.metrics.prob_lists import answer_shares, mean_by_option

SHARES = ("word_shares", "deed_shares")
SIDES = ("word", "deed")


def language_rows(scores: pl.LazyFrame, items: pl.LazyFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Rows of the summary, `agreement_{side}_{language}_{other}`, for each pair of languages that a checkpoint was asked in.

    `scores` and `items` as for `panel.build_panel`. The names of languages are in the order of the alphabet, and a row stands
    under the first of them. Items that were asked in both languages are the set that the bootstrap draws from.
    """
    asked = scores.select(ASKING).unique(maintain_order=True).collect(engine="streaming")
    max_options = scores.select(pl.col("num_options").max()).collect(engine="streaming").item() or 2
    order = items.select("item_id", "domain").with_row_index("place").collect().lazy()
    parts = [empty_summary()]
    families: dict[tuple[str, str, str, str], list[pl.DataFrame]] = {}
    for (checkpoint_id, variant), group in asked.group_by("checkpoint_id", "variant", maintain_order=True):
        if group.height < 2:
            continue
        own = scores.filter((pl.col("checkpoint_id") == checkpoint_id) & (pl.col("variant") == variant))
        answers = _answers(own, max_options).join(order, on="item_id").sort("place").collect(engine="streaming").lazy()
        for language, other in itertools.combinations(sorted(group["language"]), 2):
            both = _agreement(answers, language, other, max_options).collect()
            parts.append(_rows(Asking(str(checkpoint_id), str(variant), language), other, both, bootstrap))
            if (name := family(str(variant))) is not None:
                families.setdefault((str(checkpoint_id), name, language, other), []).append(both)
    for (checkpoint, name, language, other), members in families.items():
        mean = pl.concat(members).group_by("place").agg(pl.col("domain").first(), *(exact_mean(pl.col(side)) for side in SIDES))
        parts.append(_rows(Asking(checkpoint, name, language), other, mean.sort("place"), bootstrap))
    return pl.concat(parts)


def _rows(asking: Asking, other: str, both: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Rows of the summary from `domain`, `word`, `deed` of the items asked in the language of `asking` and in `other`."""
    agreement = both.select(pl.col(SIDES).cast(pl.Float64)).to_numpy().T
    known = ~np.isnan(agreement)
    return summary_rows(
        asking,
        [f"agreement_{side}_{asking.language}_{other}" for side in SIDES],
        np.where(known, agreement, 0.0),
        known.astype(float),
        both["domain"].to_numpy(),
        bootstrap,
    )


def _answers(scores: pl.LazyFrame, max_options: int) -> pl.LazyFrame:
    """One row for each language and item: `{side}_shares.{option}`, the share of the trials' answers that each option has."""
    rows = scores.select("language", "item_id", *(said(side).alias(f"{side}_shares") for side in SIDES))
    rows = rows.with_columns(answer_shares(pl.col(name)) for name in SHARES)
    return rows.group_by("language", "item_id").agg(mean_by_option(SHARES, max_options))


def _agreement(answers: pl.LazyFrame, language: str, other: str, max_options: int) -> pl.LazyFrame:
    """`place`, `domain`, `word`, `deed` of the items asked in both languages, in their order; null where one has no answer."""
    one = answers.filter(pl.col("language") == language)
    right = answers.filter(pl.col("language") == other).drop("language", "domain", "place")
    pairs = one.join(right, on="item_id", suffix=".other", maintain_order="left")

    def same(side: str) -> pl.Expr:
        products = [pl.col(f"{side}_shares.{i}") * pl.col(f"{side}_shares.{i}.other") for i in range(max_options)]
        # An item with fewer options has nulls behind its last one, which a horizontal sum leaves out.
        return pl.when(products[0].is_not_null()).then(pl.sum_horizontal(products)).alias(side)

    return pairs.select("place", "domain", *(same(side) for side in SIDES))
