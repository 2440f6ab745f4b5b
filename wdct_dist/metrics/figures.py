"""Rows of the summary for a metric that is worked out beside it: value, interval and number of items, in all and by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, intervals
from wdct_dist.metrics.panel import Asking, domain_sets
from wdct_dist.metrics.summary import DECIMALS
from wdct_dist.tables import schema

SUMMARY_SCHEMA = polars_schema(schema.SCORES_SUMMARY)


def ratios(numerators: Floats, denominators: Floats) -> Floats:
    """Sum of numerators / sum of denominators, [num_metrics]; NaN where the denominators sum to 0. Inputs as in `bootstrap`."""
    above, below = numerators.sum(axis=1), denominators.sum(axis=1)
    found: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return found


def rounded(value: float) -> float | None:
    """As tables have a figure: to `DECIMALS`, null where it is undefined."""
    return None if np.isnan(value) else round(float(value), DECIMALS)


def summary_rows(
    asking: Asking,
    metrics: Sequence[str],
    numerators: Floats,
    denominators: Floats,
    domains: NDArray[Any],
    bootstrap: Bootstrap,
) -> pl.DataFrame:
    """[(1 + domains) * metrics, columns of the summary]. `numerators` and `denominators` [metrics, items], `domains` [items].

    Items in the order of items.arrow. `n` counts the items with a denominator; an undefined value is null.
    """
    parts = [empty_summary()]
    for domain, places in domain_sets(domains):
        above, below = numerators[:, places], denominators[:, places]
        ends = intervals(above, below, bootstrap, domain)
        columns = {"value": ratios(above, below), "ci_low": ends[:, 0], "ci_high": ends[:, 1]}
        part = pl.DataFrame(
            {"metric": list(metrics), **{name: np.round(column, DECIMALS) for name, column in columns.items()}},
            nan_to_null=True,
        )
        parts.append(
            part.select(
                checkpoint_id=pl.lit(asking.checkpoint_id),
                variant=pl.lit(asking.variant),
                language=pl.lit(asking.language),
                domain=pl.lit(domain),
                metric="metric",
                value="value",
                ci_low="ci_low",
                ci_high="ci_high",
                level=pl.lit(bootstrap.level),
                n=pl.Series((below > 0).sum(axis=1), dtype=pl.Int64),
            ).cast(SUMMARY_SCHEMA)
        )
    return pl.concat(parts)


def prompt_share_rows(
    metric: str, checkpoint_id: str, by_prompt: pl.LazyFrame, prompts: pl.LazyFrame, items: pl.LazyFrame, bootstrap: Bootstrap
) -> pl.DataFrame:
    """Rows of the summary for the share of prompts of which something holds, in every variant and language that has such prompts.

    `by_prompt` has `prompt_id` and `value` (bool), a prompt as often as it is to count; `prompts` and `items` have the columns of
    `schema.PROMPTS` and `schema.ITEMS`. Every prompt weighs the same; items are resampled, and `n` counts them.
    """
    found = (
        prompts.select("prompt_id", "item_id", "variant", "language", "domain")
        .join(by_prompt, on="prompt_id")
        .group_by("variant", "language", "item_id")
        .agg(pl.col("domain").first(), above=pl.col("value").sum(), below=pl.col("value").count())
        .join(items.select("item_id").with_row_index("place"), on="item_id")
        .sort("variant", "language", "place")
        .collect(engine="streaming")
    )
    parts = [empty_summary()]
    for (variant, language), group in found.group_by("variant", "language", maintain_order=True):
        above, below = (group[name].cast(pl.Float64).to_numpy()[None] for name in ("above", "below"))
        asking = Asking(checkpoint_id, str(variant), str(language))
        parts.append(summary_rows(asking, [metric], above, below, np.asarray(group["domain"]), bootstrap))
    return pl.concat(parts)


def empty_summary() -> pl.DataFrame:
    """A summary without rows."""
    return pl.DataFrame(schema=SUMMARY_SCHEMA)
