"""Differences between checkpoints, variants and languages in a terminal, with what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

SHOWN = ("cs", "cs_debiased", "pcs")
MOST_ROWS = 30
"""Rows that are printed; all are in scores/differences.arrow."""

NAMES = {"cs": "CS", "cs_debiased": "CS debiased", "pcs": "PCS"}

PAPER_RANGE = (
    "For comparison: the paper reports an average CS between 0.50 and 0.76 over its 12 models "
    "(arXiv 2503.07003; its own prompts, models and items)."
)


def difference_table(differences: pl.DataFrame) -> Table | None:
    """The paired differences over all domains; None where there is nothing to compare. Columns of SCORES_DIFFERENCES."""
    rows = [
        row
        for row in differences.iter_rows(named=True)
        if row["domain"] == "all" and row["metric"] in SHOWN and row["difference"] is not None
    ]
    if not rows:
        return None
    table = Table(title="Paired differences, on the same items", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("compared", "metric", "difference [interval]", "p (Holm)", "noise"):
        table.add_column(heading, justify="left" if heading in ("compared", "metric") else "right", overflow="fold")
    for row in rows[:MOST_ROWS]:
        noise = "" if row["below_noise"] is None else "below" if row["below_noise"] else "above"
        table.add_row(Text(_compared(row)), NAMES[row["metric"]], _difference(row), _p_value(row["p_holm"]), noise)
    if len(rows) > MOST_ROWS:
        table.caption = f"{MOST_ROWS} of {len(rows)}; all are in scores/differences.arrow"
    return table


def _compared(row: dict[str, Any]) -> str:
    fixed = [str(row[name]) for name in ("checkpoint_id", "variant", "language") if row.get(name) is not None and row["kind"] not in name]
    return f"{row['left']} − {row['right']}" + (f" ({', '.join(fixed)})" if fixed else "")


def _difference(row: dict[str, Any]) -> str:
    if row["ci_low"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"


def _p_value(value: object) -> str:
    if not isinstance(value, float):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
