"""How much of the reasoning was cut: `reasoning_cut`, the share of reasonings that reached `sampling.max_new_tokens`.

They are scored like the others, behind what there is of them. Where many are cut, an answer is read behind half a thought, and the
limit decides what is measured.
"""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.figures import empty_summary, prompt_share_rows

METRIC = "reasoning_cut"


def reasoning_cut_rows(
    checkpoint_id: str, answers: pl.LazyFrame, prompts: pl.LazyFrame, items: pl.LazyFrame, bootstrap: Bootstrap
) -> pl.DataFrame:
    """Rows of the summary, `reasoning_cut`; none where no prompt asks for reasoning.

    `answers` are those of the checkpoint, of all trials; `prompts` and `items` as for `figures.prompt_share_rows`. The finish reason of
    a prompt that reasons is that of its reasoning.
    """
    reasoned = prompts.filter(pl.col("mode") == "reason")
    if reasoned.head(1).collect(engine="streaming").is_empty():
        return empty_summary()
    answered = answers.filter(pl.col("error").is_null())
    cut = answered.select("prompt_id", value=pl.col("finish_reason") == "length")
    return prompt_share_rows(METRIC, checkpoint_id, cut, reasoned, items, bootstrap)
