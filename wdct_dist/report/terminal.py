"""The report in a terminal: tables of figures, and warnings in words where a figure should not be trusted.

A function of the summary and of what the run says of itself; works at 80 columns, and without a terminal as plain text.
"""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from wdct_dist.report.contents import TERMINAL, Contents, contents
from wdct_dist.report.findings import Findings
from wdct_dist.report.layout import as_rich, least_width


def print_report(found: Findings, console: Console | None = None) -> None:
    """Prints the report of a run."""
    print_contents(contents(found, TERMINAL), console)


def print_contents(report: Contents, console: Console | None = None) -> None:
    """What the output's encoding cannot say is replaced, so that no name stops it."""
    target = console or Console()
    width = target.width
    with target.capture() as captured:
        for part, least in parts(report):
            # a figure is never cut: where the terminal is narrower, a table's lines are longer than the terminal's
            target.width = max(width, least)
            target.print(part)
            target.width = width
    encoding = target.encoding or "utf-8"
    target.file.write(captured.get().encode(encoding, "replace").decode(encoding))
    target.file.flush()


def parts(report: Contents) -> list[tuple[RenderableType, int]]:
    """The report as things that rich prints, one below the other, each with the columns that it needs at least."""
    found: list[tuple[RenderableType, int]] = [(Text(report.title, style="bold"), 0), *((Text(fact), 0) for fact in report.facts)]
    found += [(as_rich(table), least_width(table)) for table in report.tables]
    found += [(Text(f"\n{sentence}"), 0) for sentence in report.sentences]
    if report.warnings:
        found.append((Text("\nBefore you trust these figures:", style="bold"), 0))
        found += [(_bullet(warning), 0) for warning in report.warnings]
    return found


def _bullet(text: str) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row("-", Text(text))
    return grid
