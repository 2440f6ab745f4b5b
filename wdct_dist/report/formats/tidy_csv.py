"""The report's tables as one CSV: a line for each cell, so that tables of different columns are one table."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from wdct_dist.report.formats.cells import heading, read_cell
from wdct_dist.text import spreadsheet_safe

if TYPE_CHECKING:
    from wdct_dist.report.contents import Contents

COLUMNS = ("table", "name", "column", "value", "low", "high")


def as_csv(report: Contents) -> str:
    """Columns `table`, `name`, `column`, `value`, `low`, `high`; warnings have a line each, with their text as the value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in report.tables:
        for name, *cells in table.rows:
            for column, text in zip(table.columns, cells, strict=True):
                cell = read_cell(text)
                value = spreadsheet_safe(cell.value) if isinstance(cell.value, str) else cell.value
                writer.writerow((table.title, spreadsheet_safe(name), spreadsheet_safe(heading(column)), value, cell.low, cell.high))
    writer.writerows(("warnings", "", "", spreadsheet_safe(warning), None, None) for warning in report.warnings)
    return stream.getvalue()
