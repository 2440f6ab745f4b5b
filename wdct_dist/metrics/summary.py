"""scores/summary.arrow: every metric of a checkpoint, for each variant, language and domain, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from wdct_dist.items.types import ALL_DOMAINS
from wdct_dist.metrics import consistency, parsed, probability, quality, stability
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, intervals
from wdct_dist.metrics.ratio import Ratio
from wdct_dist.text import FORMULA

METRICS: dict[str, Ratio] = {
    **consistency.METRICS,
    **probability.METRICS,
    **stability.METRICS,
    **quality.METRICS,
    **parsed.METRICS,
}

ALL = ALL_DOMAINS
"""The domain that stands for all domains together."""

DECIMALS = 12
"""Figures are rounded here: what is behind it is the rounding of sums, which differs between processors."""


def contributions(items: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """What each item adds to each metric: one row for each of `keys` (which do not include the trial).

    Columns: `{metric}` (numerator) and `{metric}/` (denominator) for every metric.
    """
    columns: dict[str, pl.Expr] = {}
    for name, ratio in METRICS.items():
        columns[name] = ratio.numerator
        columns[f"{name}/"] = ratio.denominator.cast(pl.Float64)
    return items.group_by(*keys).agg(**columns)


def summarise(
    contributed: pl.DataFrame, domains: Sequence[str], bootstrap: Bootstrap, *, checkpoint_id: str, variant: str, language: str
) -> pl.DataFrame:
    """The summary of one checkpoint in one variant and language: [(1 + domains that occur) * metrics, columns of SCORES_SUMMARY].

    `contributed` as `contributions` returns it, with `domain`, sorted by item. `domains` gives the order of the domains; those
    without items are left out. `n` is the number of items that have a value; an undefined value is null, never 0.
    """
    present = set(contributed["domain"].unique())
    parts = [_one_domain(contributed, ALL, bootstrap)]
    parts += [_one_domain(contributed.filter(pl.col("domain") == domain), domain, bootstrap) for domain in domains if domain in present]
    return pl.concat(parts).select(
        checkpoint_id=pl.lit(checkpoint_id),
        variant=pl.lit(variant),
        language=pl.lit(language),
        domain="domain",
        metric="metric",
        value="value",
        ci_low="ci_low",
        ci_high="ci_high",
        level=pl.lit(bootstrap.level),
        n="n",
    )


def summary_csv(summary: pl.DataFrame) -> str:
    """summary.csv: the summary's columns with a head line; null is an empty field. No name begins as a spreadsheet's formula does."""
    text = pl.col(pl.String)
    is_formula = text.str.slice(0, 1).is_in(FORMULA)
    return summary.with_columns(pl.when(is_formula).then(pl.lit("'") + text).otherwise(text).name.keep()).write_csv()


def _one_domain(contributed: pl.DataFrame, domain: str, bootstrap: Bootstrap) -> pl.DataFrame:
    numerators = _rows(contributed, [*METRICS])
    denominators = _rows(contributed, [f"{name}/" for name in METRICS])
    above, below = numerators.sum(axis=1), denominators.sum(axis=1)
    values = np.divide(above, below, out=np.full(len(METRICS), np.nan), where=below > 0)
    ends = intervals(numerators, denominators, bootstrap, domain)
    figures = {"value": values, "ci_low": ends[:, 0], "ci_high": ends[:, 1]}
    return pl.DataFrame(
        {
            "domain": [domain] * len(METRICS),
            "metric": list(METRICS),
            **{name: np.round(column, DECIMALS) for name, column in figures.items()},
            "n": (denominators > 0).sum(axis=1),
        },
        schema_overrides={"n": pl.Int64},
        nan_to_null=True,
    )


def _rows(contributed: pl.DataFrame, columns: list[str]) -> Floats:
    """The columns as rows of an array, [len(columns), num_items]."""
    found = np.empty((len(columns), contributed.height))
    for row, column in zip(found, columns, strict=True):
        row[:] = contributed[column].to_numpy()
    return found
