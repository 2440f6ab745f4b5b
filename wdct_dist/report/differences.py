"""Differences between checkpoints, variants and languages, with what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wdct_dist.report.layout import Table

if TYPE_CHECKING:
    import polars as pl

SHOWN = ("cs", "cs_debiased", "pcs")
MOST_ROWS = 30
"""Rows that a terminal shows; all are in scores/differences.arrow."""

NAMES = {"cs": "CS", "cs_debiased": "CS deb.", "pcs": "PCS"}


def difference_table(differences: pl.DataFrame, most_rows: int = MOST_ROWS, all_are_in: str = "scores/differences.arrow") -> Table | None:
    """The paired differences over all domains; None where there is nothing to compare. Columns of SCORES_DIFFERENCES."""
    rows = [
        row
        for row in differences.iter_rows(named=True)
        if row["domain"] == "all" and row["metric"] in SHOWN and row["difference"] is not None
    ]
    if not rows:
        return None
    noisy = any(row["below_noise"] is not None for row in rows)
    cells = []
    for row in rows[:most_rows]:
        noise = "" if row["below_noise"] is None else "below" if row["below_noise"] else "above"
        cells.append((_compared(row), NAMES[row["metric"]], _difference(row), p_value_text(row["p_holm"]), *([noise] * noisy)))
    said = [
        "p: McNemar's exact test of the decisions, corrected by Holm's method over all pairs of checkpoints, of variants or of languages"
    ]
    if noisy:
        said.append("noise: below where A/A repeats of the same checkpoint differ as much, so that the difference means nothing")
    if len(rows) > most_rows:
        said.append(f"{most_rows} of {len(rows):,} rows; all are in {all_are_in}")
    columns = ("metric", "difference [interval]", "p (Holm)", *(["noise"] * noisy))
    return Table("Paired differences, on the same items", "compared", columns, tuple(cells), tuple(said))


def _compared(row: dict[str, Any]) -> str:
    fixed = [str(row[name]) for name in ("checkpoint_id", "variant", "language") if row.get(name) is not None and row["kind"] not in name]
    return f"{row['left']} − {row['right']}" + (f" ({', '.join(fixed)})" if fixed else "")


def _difference(row: dict[str, Any]) -> str:
    if row["ci_low"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"


def p_value_text(value: object) -> str:
    """A p-value as a table has it; `-` where there is none."""
    if not isinstance(value, float):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
