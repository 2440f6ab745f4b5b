"""Marginal effects: how CS and PCS move with each factor of a family of variants (scores/effects.arrow).

The members of a family differ in factors that their names say (`factors`). An item's values under the members it was asked in are
fitted by main effects (least squares, effects of a factor summing to 0), for every item by itself; the figures are means over items.

- `value`: the mean at one level of a factor, averaged evenly over the levels of the other factors.
- `effect`: `value` less the mean over the levels of the factor. Intervals: bootstrap over items, see `bootstrap`.

In a full product these are plain averages. In a seeded sample of the product the plain averages would mix factors (a label set that
happened to meet the better wordings would look better); the fit takes them apart, as far as the sample allows: what it does not
allow is null. An item counts for a factor where it has values at all its levels, so that every level is judged on the same items
(paraphrases exist for some items only); `n` counts them. Factors that do not interact are assumed, as marginal effects do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, intervals
from wdct_dist.metrics.factors import factors, family
from wdct_dist.metrics.figures import empty_summary, ratios, rounded, summary_rows
from wdct_dist.metrics.item_values import METRICS
from wdct_dist.metrics.panel import NOT_ASKED, Asking, Panel
from wdct_dist.tables import schema

MEASURES = ("cs", "pcs")

AVERAGED = {"cs": "cs", "pcs": "pcs", "cs_debiased": "cs_averaged", "pcs_debiased": "pcs_averaged"}
"""What a family's values are called in the summary: means over its members, and those of the probabilities averaged over them."""

UNSAID = "-"
"""The level of a factor that a member's name does not have."""

ESTIMABLE = 1e-9
"""A contrast that the fit reproduces to this can be told apart from the others; rounding leaves 1e-14."""

SCHEMA = polars_schema(schema.SCORES_EFFECTS)


@dataclass(frozen=True, slots=True)
class _Contrasts:
    """Weights on the members' values, for every level of every factor: [levels of all factors, members]; NaN: not to be had."""

    values: Floats
    effects: Floats


def effects(panel: Panel, bootstrap: Bootstrap) -> pl.DataFrame:
    """Every level of every factor that has two or more: [… * (1 + domains) * `MEASURES`, columns of SCORES_EFFECTS]."""
    parts = [empty_effects()]
    for asking, members in _families(panel).items():
        settings = _complete([factors(panel.askings[row].variant) for row in members])
        levels = _levels(settings)
        if not levels:
            continue
        for metric in MEASURES:
            fitted_values, fitted_effects = _fit(panel.values[members, METRICS.index(metric)], settings, levels)
            for domain, places in panel.item_sets(members):
                value, effect = fitted_values[:, places], fitted_effects[:, places]
                parts.append(effect_rows(asking, domain, levels, metric, value, effect, bootstrap))
    return pl.concat(parts)


def effect_rows(
    asking: Asking, domain: str, levels: Sequence[tuple[str, str]], metric: str, value: Floats, effect: Floats, bootstrap: Bootstrap
) -> pl.DataFrame:
    """[levels, columns of SCORES_EFFECTS] from the items' values and effects, [levels, items] each; NaN where an item does not count.

    `asking` names the family as its variant; `levels` are pairs of factor and level.
    """
    known = ~np.isnan(effect)
    weights = known.astype(float)
    ends = intervals(np.where(known, effect, 0.0), weights, bootstrap, domain)
    means = ratios(np.where(known, value, 0.0), weights)
    moves = ratios(np.where(known, effect, 0.0), weights)
    rows: list[tuple[object, ...]] = []
    for place, (factor, level) in enumerate(levels):
        figures = [rounded(number) for number in (means[place], moves[place], *ends[place])]
        counted = int(np.count_nonzero(known[place]))
        name = (asking.checkpoint_id, asking.language, asking.variant, domain, factor, level, metric)
        rows.append((*name, *figures, bootstrap.level, counted))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def empty_effects() -> pl.DataFrame:
    """A table of effects without rows."""
    return pl.DataFrame(schema=SCHEMA)


def family_rows(panel: Panel, bootstrap: Bootstrap) -> pl.DataFrame:
    """Each family as one variant in the summary: `cs` and `pcs` over its members, `cs_averaged` and `pcs_averaged`."""
    parts = [empty_summary()]
    for asking in _families(panel):
        row = panel.askings.index(asking)
        places = np.flatnonzero(panel.decisions[row] != NOT_ASKED)
        values = panel.values[row][:, places]
        known = ~np.isnan(values)
        names = [AVERAGED[metric] for metric in METRICS]
        above = np.where(known, values, 0.0)
        parts.append(summary_rows(asking, names, above, known.astype(float), panel.domains[places], bootstrap))
    return pl.concat(parts)


def _families(panel: Panel) -> dict[Asking, list[int]]:
    """The members' rows of each family, by the family as a way of asking."""
    found: dict[Asking, list[int]] = {}
    for row, asking in enumerate(panel.askings):
        if (name := family(asking.variant)) is not None:
            found.setdefault(Asking(asking.checkpoint_id, name, asking.language), []).append(row)
    return found


def _complete(settings: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Every factor of the family in each setting; where a member's name does not say one, its level is `UNSAID`."""
    names = dict.fromkeys(factor for setting in settings for factor in setting)
    return [{factor: setting.get(factor, UNSAID) for factor in names} for setting in settings]


def _levels(settings: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """Each factor's levels, in the order in which they come, of factors that have two or more."""
    seen: dict[str, dict[str, None]] = {}
    for setting in settings:
        for factor, level in setting.items():
            seen.setdefault(factor, {})[level] = None
    return [(factor, level) for factor, levels in seen.items() if len(levels) > 1 for level in levels]


def _fit(values: Floats, settings: Sequence[dict[str, str]], levels: Sequence[tuple[str, str]]) -> tuple[Floats, Floats]:
    """Values and effects of each item, [levels, items] each, from values [members, items]; NaN where an item does not count."""
    value = np.full((len(levels), values.shape[1]), np.nan)
    effect = np.full((len(levels), values.shape[1]), np.nan)
    patterns, which = np.unique(~np.isnan(values), axis=1, return_inverse=True)
    for number, present in enumerate(patterns.T):
        if not present.any():
            continue
        places = np.flatnonzero(which.reshape(-1) == number)
        contrasts = _contrasts([setting for setting, there in zip(settings, present, strict=True) if there], levels)
        some = values[np.ix_(present, places)]
        value[:, places] = contrasts.values @ some
        effect[:, places] = contrasts.effects @ some
    return value, effect


def _contrasts(settings: Sequence[dict[str, str]], levels: Sequence[tuple[str, str]]) -> _Contrasts:
    """For an item that has values in the members with these `settings`."""
    present = set(_levels(settings))
    by_factor: dict[str, list[str]] = {}
    for factor, level in levels:
        if (factor, level) in present:
            by_factor.setdefault(factor, []).append(level)
    columns = [np.ones(len(settings))]
    combinations: dict[tuple[str, str], NDArray[np.float64]] = {}
    num_columns = 1 + sum(len(own) - 1 for own in by_factor.values())
    for factor, own in by_factor.items():
        at = len(columns)
        for place, level in enumerate(own):
            # Sum coding: a column for each level but the last, which is the negative sum of the others.
            combination = np.zeros(num_columns)
            combination[at : at + len(own) - 1] = np.eye(len(own) - 1)[place] if place < len(own) - 1 else -1.0
            combinations[factor, level] = combination
        coded = np.array([combinations[factor, setting[factor]][at : at + len(own) - 1] for setting in settings])
        columns += list(coded.T)
    design = np.column_stack(columns)
    inverse = np.linalg.pinv(design)
    nothing = np.full(len(settings), np.nan)
    mean = np.eye(num_columns)[0]

    def weights(combination: Floats | None) -> Floats:
        if combination is None or np.abs(combination @ inverse @ design - combination).max() > ESTIMABLE:
            return nothing
        found: Floats = combination @ inverse
        return found

    # A factor is judged where all its levels are there.
    whole = {factor for factor, own in by_factor.items() if len(own) == sum(name == factor for name, _ in levels)}
    usable = [combinations[key] if key[0] in whole else None for key in levels]
    moves = [weights(combination) for combination in usable]
    means = [weights(None if combination is None else mean + combination) for combination in usable]
    return _Contrasts(np.array(means), np.array(moves))
