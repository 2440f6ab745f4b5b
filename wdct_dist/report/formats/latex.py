r"""The report as LaTeX to \input into a paper: a booktabs table for each table (`\usepackage{booktabs}`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wdct_dist.report.contents import Contents
    from wdct_dist.report.layout import Table

_SPELLED = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        # what pdflatex does not know in UTF-8
        "−": "$-$",
        "×": r"$\times$",
    }
)


def as_latex(report: Contents) -> str:
    """A fragment; names in scripts other than Latin need XeLaTeX or LuaLaTeX with a font that has them."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Contents) -> Iterator[str]:
    yield from (f"% {' '.join(line.split())}" for line in (report.title, *report.facts))
    for table in report.tables:
        yield from _table(table)
    for sentence in report.sentences:
        yield f"\n{_escaped(sentence)}"
    if report.warnings:
        yield "\n\\paragraph{Before you trust these figures}\n\\begin{itemize}"
        yield from (f"  \\item {_escaped(warning)}" for warning in report.warnings)
        yield "\\end{itemize}"


def _table(table: Table) -> Iterator[str]:
    yield f"\n\\begin{{table}}\n  \\centering\n  \\caption{{{_escaped(table.title)}}}\n  \\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    yield "    \\toprule"
    yield _row((table.names, *table.columns))
    yield "    \\midrule"
    yield from map(_row, table.rows)
    yield "    \\bottomrule\n  \\end{tabular}"
    yield from (f"  \\par\\footnotesize {_escaped(note)}" for note in table.notes)
    yield "\\end{table}"


def _row(cells: tuple[str, ...]) -> str:
    # the braces keep a cell that begins with [ or * from being read as an option of the line before
    return f"    {' & '.join(f'{{{_escaped(cell)}}}' for cell in cells)} \\\\"


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(_SPELLED)
