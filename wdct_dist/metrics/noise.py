"""The A/A noise floor: how far a measure moves when nothing but batching does.

Engines are not bit-stable under every batching. `metrics.noise_repeats` asks the same checkpoint the same prompts again, in
another order and in shards of other sizes. Each repeat is a run directory inside the run, `noise/1`, `noise/2` …: its prompts.arrow
has the same prompts in another order, its `answers/` one row for each row of the plan, so the run's own answers stay one row for
each (checkpoint, prompt, trial). Scores of a repeat are made from the run's prompts and items (`run_comparisons`).

The floor of a metric is the larger of two figures over all pairs of evaluations (the run and its repeats), on the items that have
a value in all of them:

- `largest`: the largest change of the metric that was seen. Alone it is too trusting: where three items went up and three down,
  the metric did not move, though six items did.
- z * `typical`, z the normal quantile of `level` (1.96 for 0.95). `typical` is the standard deviation that the changes of single
  items give the metric when each goes up or down by chance: sqrt(sum of squared changes) / number of items, root mean square over
  the pairs.

A difference between checkpoints has the noise of two evaluations, and so has a change between two evaluations of one: the floor
needs no further factor. It says nothing of sampling items; the interval does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import polars as pl

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Floats
from wdct_dist.metrics.figures import SUMMARY_SCHEMA
from wdct_dist.metrics.item_values import METRICS
from wdct_dist.metrics.panel import Panel
from wdct_dist.metrics.summary import DECIMALS
from wdct_dist.tables import schema

SCHEMA = polars_schema(schema.SCORES_NOISE)

SUMMARY_NAMES = {"cs": "noise", "cs_debiased": "noise_cs_debiased", "pcs": "noise_pcs", "pcs_debiased": "noise_pcs_debiased"}
"""What a floor is called in the summary."""


def noise_floors(run: Panel, repeats: Sequence[Panel], level: float) -> pl.DataFrame:
    """[ways of asking with repeats * (1 + domains) * `METRICS`, columns of SCORES_NOISE]; figures are null where no item counts.

    The panels are over the same items. A way of asking that a repeat lacks has that many repeats fewer; with none it has no rows.
    """
    rows: list[tuple[object, ...]] = []
    for row, asking in enumerate(run.askings):
        again = [repeat.values[repeat.askings.index(asking)] for repeat in repeats if asking in repeat.askings]
        if not again:
            continue
        evaluations = np.stack([run.values[row], *again])
        for domain, places in run.item_sets([row]):
            for metric, values in zip(METRICS, evaluations[:, :, places].transpose(1, 0, 2), strict=True):
                shared = values[:, ~np.isnan(values).any(axis=0)]
                figures = _figures(shared, level) if shared.shape[1] else (None,) * 4
                rows.append(
                    (asking.checkpoint_id, asking.variant, asking.language, domain, metric, *figures, level, shared.shape[1], len(again))
                )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def noise_rows(floors: pl.DataFrame) -> pl.DataFrame:
    """The floors as rows of the summary: `noise` is that of CS, `noise_pcs` that of PCS; without intervals."""
    return floors.select(
        "checkpoint_id",
        "variant",
        "language",
        "domain",
        pl.col("metric").replace_strict(SUMMARY_NAMES, return_dtype=pl.String),
        value="floor",
        ci_low=pl.lit(None, pl.Float64),
        ci_high=pl.lit(None, pl.Float64),
        level="level",
        n="n",
    ).cast(SUMMARY_SCHEMA)


def _figures(values: Floats, level: float) -> tuple[float, float, float, float]:
    """floor, largest, typical, changed of values [evaluations, items]."""
    num_items = values.shape[1]
    changes = np.stack([one - other for one, other in itertools.combinations(values, 2)])
    largest = float(np.abs(changes.mean(axis=1)).max())
    typical = float(np.sqrt(np.square(changes).sum(axis=1).mean()) / num_items)
    changed = float((changes != 0).any(axis=0).mean())
    floor = max(largest, NormalDist().inv_cdf((1 + level) / 2) * typical)
    return round(floor, DECIMALS), round(largest, DECIMALS), round(typical, DECIMALS), round(changed, DECIMALS)
