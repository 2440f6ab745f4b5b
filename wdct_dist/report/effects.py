"""How CS and PCS move with each factor of a family of variants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wdct_dist.metrics.factors import OPTION_ORDER
from wdct_dist.report.layout import Table

if TYPE_CHECKING:
    import polars as pl

MOST_TABLES = 4
"""Families of checkpoints that a terminal shows; all are in scores/effects.arrow."""


def effect_tables(effects: pl.DataFrame, most_tables: int = MOST_TABLES) -> list[Table]:
    """One table for each checkpoint, language and family that has a factor with several levels, over all domains.

    The option order, which every variant has, makes no table of its own.

    `effects` has the columns of SCORES_EFFECTS.
    """
    everyone = effects.filter(domain="all").group_by("checkpoint_id", "language", "family", maintain_order=True)
    groups = [(key, group) for key, group in everyone if set(group["factor"]) != {OPTION_ORDER}]
    tables = [_table(", ".join(str(part) for part in key), group) for key, group in groups[:most_tables]]
    if not tables:
        return []
    notes = (
        "a level's figure is averaged evenly over the other factors; its effect is how far it is from the mean over the factor's levels",
        "* the interval of the effect does not hold 0",
        *(
            ["option_order: whether both questions show the options in one order"]
            * any(OPTION_ORDER in group["factor"] for _, group in groups)
        ),
        *([f"{len(groups) - most_tables} more are in scores/effects.arrow"] * (len(groups) > most_tables)),
    )
    return [*tables[:-1], replace(tables[-1], notes=notes)]


def _table(name: str, group: pl.DataFrame) -> Table:
    counts = group["n"].unique().to_list()
    many = len(counts) > 1  # else the number stands in the title, and the levels have the room
    title = f"What each factor does: {name}" + ("" if many else f" ({counts[0]:,} items)")
    cells = []
    for (factor, level), rows in group.group_by("factor", "factor_level", maintain_order=True):
        by_metric = {row["metric"]: row for row in rows.iter_rows(named=True)}
        figures = [cell for metric in ("cs", "pcs") for cell in _cells(by_metric[metric])]
        cells.append((f"{factor}={level}", *figures, *([f"{by_metric['cs']['n']:,}"] * many)))
    return Table(title, "level", ("CS", "effect on CS", "PCS", "effect on PCS", *(["items"] * many)), tuple(cells))


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    value, effect, low, high = (row[name] for name in ("value", "effect", "ci_low", "ci_high"))
    if value is None or effect is None:
        return "-", "-"
    if low is None or high is None:
        return f"{value:.3f}", f"{effect:+.3f}"
    mark = " " if low <= 0 <= high else "*"
    return f"{value:.3f}", f"{effect:+.3f}{mark}[{low:+.2f}, {high:+.2f}]"
