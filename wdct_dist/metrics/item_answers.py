"""The one answer that a checkpoint gives to a side of an item, over all trials."""

from __future__ import annotations

import polars as pl

from wdct_dist.items.types import Side
from wdct_dist.metrics.exact_sum import exact_mean

KEYS = ("checkpoint_id", "variant", "language", "item_id")


def item_answers(scores: pl.LazyFrame, side: Side) -> pl.DataFrame:
    """One row for each checkpoint, variant, language and item of `scores` (columns of SCORES_ITEMS), in their order:

    - `KEYS`, `domain`, `num_options`.
    - `option`: the option that most of its trials answer with; null where there is none, or where several lead.
    - `tie`: whether it is null although there was an answer. A tie is never decided by position.
    - `status`: `ok` where a trial has an answer, else the parse status of the first trial.
    - `probs`: the mean option probabilities over trials; null where a trial has none.
    """
    option, probs = pl.col(f"{side}_option"), pl.col(f"{side}_probs")
    answered = option.is_not_null() | pl.col(f"{side}_tie").fill_null(False)
    most = scores.select(pl.col("num_options").max()).collect(engine="streaming").item() or 2
    one = pl.col("leaders").list.len() == 1
    return (
        scores.group_by(*KEYS, maintain_order=True)
        .agg(
            pl.col("domain", "num_options").first(),
            *(exact_mean(probs.list.get(i, null_on_oob=True)).alias(f"p{i}") for i in range(most)),
            leaders=option.drop_nulls().mode(),
            answered=answered.any(),
            first_status=pl.col(f"parse_status_{side}").first(),
            whole=probs.is_not_null().all(),
        )
        .select(
            *KEYS,
            "domain",
            "num_options",
            option=pl.when(one).then(pl.col("leaders").list.first()),
            tie=pl.col("answered") & ~one,
            status=pl.when("answered").then(pl.lit("ok")).otherwise("first_status"),
            probs=pl.when("whole").then(pl.concat_list(f"p{i}" for i in range(most)).list.head("num_options")),
        )
        .collect()
    )
