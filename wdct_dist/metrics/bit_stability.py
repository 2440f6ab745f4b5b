"""Whether an engine repeats itself bit for bit: option log-probabilities of the same prompt over trials.

`bit_stable` is the share of prompts whose `option_logprobs` have the same bits in every trial that answered, among prompts that two
or more trials answered. With `sampling.temperature: 0` (and in variants without sampling at any temperature) a deterministic
engine has 1; less means that batching moved the numbers, by the noise that `noise` measures.
"""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.figures import empty_summary, prompt_share_rows

METRIC = "bit_stable"


def bit_stability(answers: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each prompt with two or more answered trials: `prompt_id`, `stable` (bool).

    `answers` (columns of `schema.ANSWERS`) are those of one checkpoint. Numbers are compared as they are, without any tolerance; so
    the bits are the same, but for 0.0 and -0.0, which are one log-probability.
    """
    logprobs = pl.col("option_logprobs")
    answered = answers.filter(pl.col("error").is_null() & logprobs.is_not_null())
    widest = answered.select(logprobs.list.len().max()).collect(engine="streaming").item() or 0
    # No log-probability is above 0, so infinity stands for NaN, which `min` and `max` would leave out.
    options = [logprobs.list.get(i, null_on_oob=True).fill_nan(float("inf")).alias(f"option{i}") for i in range(widest)]
    same = [(pl.col(name).min() == pl.col(name).max()).fill_null(True).alias(name) for name in (f"option{i}" for i in range(widest))]
    return (
        answered.select("prompt_id", "trial", *options, length=logprobs.list.len())
        .group_by("prompt_id")
        .agg(*same, length=pl.col("length").min() == pl.col("length").max(), num_trials=pl.len())
        .filter(pl.col("num_trials") > 1)
        .select("prompt_id", stable=pl.all_horizontal("length", *(f"option{i}" for i in range(widest))))
    )


def bit_stable_rows(
    checkpoint_id: str, answers: pl.LazyFrame, prompts: pl.LazyFrame, items: pl.LazyFrame, bootstrap: Bootstrap
) -> pl.DataFrame:
    """Rows of the summary, `bit_stable`; none where there is one trial only.

    `answers` are those of the checkpoint; `prompts` and `items` as for `figures.prompt_share_rows`.
    """
    if answers.select(pl.col("trial").n_unique()).collect(engine="streaming").item() < 2:
        return empty_summary()
    return prompt_share_rows(METRIC, checkpoint_id, bit_stability(answers).rename({"stable": "value"}), prompts, items, bootstrap)
