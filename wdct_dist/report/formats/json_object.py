"""The report as a JSON object: title, facts, tables, sentences, warnings. A row of a table is an object by heading."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wdct_dist.report.formats.cells import heading, read_cell

if TYPE_CHECKING:
    from wdct_dist.report.contents import Contents
    from wdct_dist.report.layout import Table


def as_json(report: Contents) -> str:
    """One object. A figure is a number, with an interval `{value, low, high}`; what is undefined is null."""
    tables = [{"title": table.title, "rows": [_row(table, row) for row in table.rows], "notes": table.notes} for table in report.tables]
    said = {
        "title": report.title,
        "facts": report.facts,
        "tables": tables,
        "sentences": report.sentences,
        "warnings": report.warnings,
    }
    return json.dumps(said, ensure_ascii=False, indent=2) + "\n"


def _row(table: Table, row: tuple[str, ...]) -> dict[str, Any]:
    name, *cells = row
    return {table.names: name} | {heading(column): _cell(text) for column, text in zip(table.columns, cells, strict=True)}


def _cell(text: str) -> Any:
    cell = read_cell(text)
    return cell.value if cell.low is None else {"value": cell.value, "low": cell.low, "high": cell.high}
