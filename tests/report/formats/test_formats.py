"""`wdct report --format`: the terminal's tables for pipes and papers."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import polars as pl
import pytest

from wdct_dist.config.schema import Config
from wdct_dist.report.contents import Contents, contents
from wdct_dist.report.findings import Findings, Scores
from wdct_dist.report.formats import FORMATS
from wdct_dist.report.formats.cells import Cell, read_cell

NASTY = "a|b_c*[x](y)<img> & 50 % $1 #2 {z} \\end{table} ~^"


@pytest.fixture
def report(summary: Any) -> Contents:
    """Two checkpoints in seven domains; one has a hostile name and a figure that is undefined, and is warned of."""
    frame = summary(("base", {}), (NASTY, {"label_mass": 0.1, "cs_stable": None}), domains=[f"domain {number}" for number in range(7)])
    return contents(Findings(Scores(frame), Config(), {}))


def test_json_has_numbers_intervals_and_nothing_for_what_is_undefined(report: Contents) -> None:
    said = json.loads(FORMATS["json"](report))
    consistency, trust, domains = said["tables"]
    assert consistency["rows"][0] == {
        "checkpoint": "base",
        "CS": {"value": 0.71, "low": 0.67, "high": 0.75},
        "PCS": {"value": 0.83, "low": 0.79, "high": 0.87},
        "chance": 0.5,
        "items": 500,
    }
    assert trust["rows"][1]["checkpoint"] == NASTY
    assert trust["rows"][1]["CS stable (items)"] == "- (0)"
    assert list(domains["rows"][0]) == ["checkpoint", *(f"domain {number}" for number in range(7))]
    assert len(said["warnings"]) == 1


def test_csv_has_a_line_for_each_cell_and_each_warning(report: Contents) -> None:
    text = FORMATS["csv"](report)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == sum(len(table.rows) * len(table.columns) for table in report.tables) + 1
    frame = pl.read_csv(io.StringIO(text))
    found = frame.filter(table="Consistency", name=NASTY, column="CS").row(0, named=True)
    assert (float(found["value"]), found["low"], found["high"]) == (0.71, 0.67, 0.75)
    assert lines[-1]["value"] == report.warnings[0]


def test_markdown_tables_are_as_wide_as_their_heading_whatever_a_name_holds(report: Contents) -> None:
    text = FORMATS["md"](report)
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    expected = [len(table.columns) + 2 for table in report.tables for _ in range(2 + len(table.rows))]
    assert widths == expected
    assert "| base | 0.710 \\[0.670, 0.750\\] |" in text
    assert not re.search(r"(?<!\\)<img", text)
    assert "## Before you trust these figures" in text


def test_latex_ends_what_it_begins_and_a_name_ends_nothing(report: Contents) -> None:
    text = FORMATS["latex"](report)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert begun == ["table", "tabular"] * len(report.tables) + ["itemize"]
    assert r"{a\textbar{}b\_c*[x](y)\textless{}img\textgreater{} \& 50 \% \$1 \#2 \{z\} \textbackslash{}end\{table\}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == sum(1 + len(table.rows) for table in report.tables)
    for line in rows:
        assert len(re.findall(r"(?<!\\)&", line)) in {len(table.columns) for table in report.tables}


@pytest.mark.parametrize("form", FORMATS)
def test_every_figure_of_every_table_is_in_every_format(form: str, report: Contents) -> None:
    text = FORMATS[form](report)
    for figure in ("0.71", "0.67", "0.75", "0.98", "0.74"):
        assert figure in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_answers_is_a_report_without_tables(form: str, summary: Any) -> None:
    text = FORMATS[form](contents(Findings(Scores(summary().clear()), Config(), {})))
    assert ("No figures" in text) == (form != "csv")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("-0.012 [-0.050, +0.020]", Cell(-0.012, -0.05, 0.02)),
        ("0", Cell(0)),
        ("1,225", Cell(1225)),
        ("-", Cell(None)),
        # a digest of digits alone, of which a number would lose the first
        ("012345678901", Cell("012345678901")),
    ],
)
def test_cells_are_numbers_where_they_say_numbers(text: str, cell: Cell) -> None:
    assert read_cell(text) == cell
