"""Paired differences: two checkpoints, two variants or two languages on the same items (scores/differences.arrow).

- Difference: mean over the items that have a value on both sides of left - right. Its interval is the percentile bootstrap of
  `bootstrap`: both sides are drawn together, the items asked on either side are the set that is drawn from.
- Test, for CS: McNemar's exact test on decisions. With several orders an item's match is a share, so its decision is whether the
  option probabilities averaged over orders (and trials) have the same most probable option on both sides: `match_debiased`. Items
  without an answer, and those that a tie leaves open, are left out of the test and counted in `n_undecided`. The p-value stands in
  the rows of `cs_debiased`, which it tests, and in those of `cs` where that is the same figure (one order a question). Elsewhere
  `cs` has an interval only, as PCS has: a share of orders can move one way while the decisions move the other.
- Correction: Holm's, over a stated family. The tests of one `kind` over all items (`domain` all) are a family; the tests of one
  kind by domain are another, together, so that asking for domains does not blunt the answer over all. `family_size` counts them.
- Noise: `below_noise` where the difference is at most the A/A noise floor (`noise`) of its metric, the larger one of both sides.

Which pairs: checkpoints within each variant and language, variants within each checkpoint and language, languages within each
checkpoint and variant; left is the one that comes first in scores/items.arrow. Members of a family of variants are not paired with
each other (`effects` says what each factor does); the family stands for them as one variant, after the single ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, resampled_ratios
from wdct_dist.metrics.factors import factors
from wdct_dist.metrics.figures import ratios, rounded
from wdct_dist.metrics.holm import holm
from wdct_dist.metrics.item_values import METRICS
from wdct_dist.metrics.mcnemar import mcnemar_exact
from wdct_dist.metrics.panel import DIFFERENT, MATCHED, NOT_ASKED, Asking, Panel, Places
from wdct_dist.metrics.summary import ALL
from wdct_dist.tables import schema

Kind = Literal["checkpoint", "variant", "language"]
KINDS: tuple[Kind, ...] = ("checkpoint", "variant", "language")

TESTED = "cs_debiased"
"""The metric that the p-value is about."""

ROWS_BYTES = 256 * 2**20
"""Memory of the values that are resampled at once."""

SCHEMA = polars_schema(schema.SCORES_DIFFERENCES)


@dataclass(frozen=True, slots=True)
class _Group:
    """Ways of asking that differ in one thing."""

    kind: Kind
    rows: tuple[int, ...]
    """Of the panel's `askings`."""

    def pairs(self) -> list[tuple[int, int]]:
        return list(itertools.combinations(range(len(self.rows)), 2))


@dataclass(frozen=True, slots=True)
class _Test:
    """Decisions of a pair."""

    left_only: int
    right_only: int
    undecided: int
    p_value: float | None
    """None where no item is decided on both sides."""


def differences(
    panel: Panel,
    bootstrap: Bootstrap,
    floors: pl.DataFrame | None = None,
    *,
    compared: Callable[[Asking, Asking], bool] = lambda left, right: True,
) -> pl.DataFrame:
    """All paired differences, [pairs * (1 + domains) * `METRICS`, columns of SCORES_DIFFERENCES].

    `floors` as `noise.noise_floors` returns it. An undefined figure is null; so is `below_noise` where neither side has repeats.
    `compared` says which pairs are wanted; tests of the others do not count in the correction.
    """
    known = _floor_of(floors)
    rows = [row for group in _groups(panel.askings) for row in _compare(panel, group, bootstrap, known, compared)]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return _corrected(table)


def _groups(askings: Sequence[Asking]) -> Iterator[_Group]:
    single = [row for row, asking in enumerate(askings) if not factors(asking.variant)]
    for kind in KINDS:
        found: dict[tuple[str | None, ...], list[int]] = {}
        for row in single:
            found.setdefault(_common(askings[row], kind), []).append(row)
        yield from (_Group(kind, tuple(rows)) for rows in found.values() if len(rows) > 1)


def _common(asking: Asking, kind: Kind) -> tuple[str | None, ...]:
    return (
        None if kind == "checkpoint" else asking.checkpoint_id,
        None if kind == "variant" else asking.variant,
        None if kind == "language" else asking.language,
    )


def _compare(
    panel: Panel,
    group: _Group,
    bootstrap: Bootstrap,
    known: dict[tuple[Asking, str, str], float],
    compared: Callable[[Asking, Asking], bool],
) -> Iterator[tuple[object, ...]]:
    ways = [panel.askings[row] for row in group.rows]
    pairs = [(left, right) for left, right in group.pairs() if compared(ways[left], ways[right])]
    if not pairs:
        return
    for domain, places in panel.item_sets(group.rows):
        values = panel.values[np.ix_(np.array(group.rows), np.arange(len(METRICS)), places)]
        ends = _intervals(values, pairs, bootstrap, domain)
        for (left, right), pair_ends in zip(pairs, ends, strict=True):
            change = values[left] - values[right]
            shared = ~np.isnan(change)
            estimates = ratios(np.where(shared, change, 0.0), shared.astype(float))
            one, other = panel.askings[group.rows[left]], panel.askings[group.rows[right]]
            test = _test(panel, group.rows[left], group.rows[right], places)
            tested_metrics = {TESTED, "cs"} if _samerounded(values[[left, right]]) else {TESTED}
            for metric, estimate, (low, high), num_items in zip(METRICS, estimates, pair_ends, shared.sum(axis=1), strict=True):
                tested = metric in tested_metrics
                difference = rounded(estimate)
                floor = max((known[key] for side in (one, other) if (key := (side, domain, metric)) in known), default=None)
                yield (
                    group.kind,
                    _name(one, group.kind),
                    _name(other, group.kind),
                    *_common(one, group.kind),
                    domain,
                    metric,
                    difference,
                    rounded(low),
                    rounded(high),
                    bootstrap.level,
                    test.p_value if tested else None,
                    None,
                    None,
                    int(num_items),
                    test.left_only + test.right_only if tested else None,
                    test.left_only if tested else None,
                    test.undecided if tested else None,
                    floor,
                    None if floor is None or difference is None else abs(difference) <= floor,
                )


def _intervals(values: Floats, pairs: Sequence[tuple[int, int]], bootstrap: Bootstrap, item_set: str) -> Floats:
    """[pairs, metrics, 2] from values [sides, metrics, items]; NaN where fewer than two items are shared.

    Where both sides have values for the same items, the resampled difference is the difference of their resampled means, which
    takes one row a side and not one a pair. Otherwise the pair is resampled by itself, over the items that it shares.
    """
    num_sides, num_metrics, num_items = values.shape
    ends = np.full((len(pairs), num_metrics, 2), np.nan)
    if bootstrap.resamples == 0:
        return ends
    present = ~np.isnan(values)
    means = _resampled(values.reshape(-1, num_items), bootstrap, item_set).reshape(num_sides, num_metrics, -1)
    unlike: list[tuple[int, int]] = []
    for pair, (left, right) in enumerate(pairs):
        for metric in range(num_metrics):
            if not np.array_equal(present[left, metric], present[right, metric]):
                unlike.append((pair, metric))
            elif np.count_nonzero(present[left, metric]) >= 2:
                ends[pair, metric] = _quantiles(means[left, metric] - means[right, metric], bootstrap.level)
    at_once = max(1, ROWS_BYTES // (8 * num_items))
    for start in range(0, len(unlike), at_once):
        some = unlike[start : start + at_once]
        changes = np.stack([values[pairs[pair][0], metric] - values[pairs[pair][1], metric] for pair, metric in some])
        for (pair, metric), change, found in zip(some, changes, _resampled(changes, bootstrap, item_set), strict=True):
            if np.count_nonzero(~np.isnan(change)) >= 2:
                ends[pair, metric] = _quantiles(found, bootstrap.level)
    return ends


def _resampled(values: Floats, bootstrap: Bootstrap, item_set: str) -> Floats:
    """The mean of each row of values [rows, items] in each resample, [rows, resamples]; some rows at a time, all on the same draws."""
    at_once = max(1, ROWS_BYTES // (8 * values.shape[1]))
    parts = []
    for start in range(0, len(values), at_once):
        some = values[start : start + at_once]
        present = ~np.isnan(some)
        parts.append(resampled_ratios(np.where(present, some, 0.0), present.astype(float), bootstrap, item_set))
    return np.concatenate(parts)


def _quantiles(resampled: Floats, level: float) -> Floats:
    defined = resampled[~np.isnan(resampled)]
    return np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else np.full(2, np.nan)


def _test(panel: Panel, left: int, right: int, places: Places) -> _Test:
    one, other = panel.decisions[left, places], panel.decisions[right, places]
    decided = (one >= DIFFERENT) & (other >= DIFFERENT)
    asked = (one != NOT_ASKED) & (other != NOT_ASKED)
    left_only = int(np.count_nonzero(decided & (one == MATCHED) & (other == DIFFERENT)))
    right_only = int(np.count_nonzero(decided & (one == DIFFERENT) & (other == MATCHED)))
    p_value = mcnemar_exact(left_only, right_only) if decided.any() else None
    return _Test(left_only, right_only, int(np.count_nonzero(asked & ~decided)), p_value)


def _samerounded(values: Floats) -> bool:
    """Whether CS and debiased CS are the same for every item, in values [sides, metrics, items]."""
    return np.array_equal(values[:, METRICS.index("cs")], values[:, METRICS.index(TESTED)], equal_nan=True)


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Fills `p_holm` and `family_size`: each test once, however many rows show it."""
    table = table.with_row_index("row")
    parts = []
    for (_, _), part in table.group_by("kind", pl.col("domain") == ALL, maintain_order=True):
        tests = part.filter((pl.col("metric") == TESTED) & pl.col("p_value").is_not_null())
        comparison = ["left", "right", "checkpoint_id", "variant", "language", "domain"]
        found = tests.select(
            *comparison,
            p_holm=pl.Series(holm(tests["p_value"].to_list()), dtype=pl.Float64),
            family_size=pl.lit(tests.height, pl.Int64),
        )
        joined = part.drop("p_holm", "family_size").join(found, on=comparison, how="left", nulls_equal=True)
        has_test = pl.col("p_value").is_not_null()
        parts.append(joined.with_columns(pl.when(has_test).then(name).alias(name) for name in ("p_holm", "family_size")))
    return pl.concat(parts).sort("row").select(SCHEMA.names()) if parts else table.select(SCHEMA.names())


def _floor_of(floors: pl.DataFrame | None) -> dict[tuple[Asking, str, str], float]:
    if floors is None:
        return {}
    columns = ("checkpoint_id", "variant", "language", "domain", "metric", "floor")
    return {
        (Asking(checkpoint_id, variant, language), domain, metric): floor
        for checkpoint_id, variant, language, domain, metric, floor in floors.select(columns).iter_rows()
        if floor is not None
    }


def _name(asking: Asking, kind: Kind) -> str:
    return {"checkpoint": asking.checkpoint_id, "variant": asking.variant, "language": asking.language}[kind]
