"""The report in a terminal: tables of figures, and warnings in words where a figure should not be trusted.

A function of the summary and of what the run says of itself; works at 80 columns, and without a terminal as plain text.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from wdct_dist.report.contents import TERMINAL, Contents, contents
from wdct_dist.report.findings import Findings
from wdct_dist.report.layout import as_rich


def print_report(found: Findings, console: Console | None = None) -> None:
    """Prints the report of a run."""
    print_contents(contents(found, TERMINAL), console)


def print_contents(report: Contents, console: Console | None = None) -> None:
    """What the output's encoding cannot say is replaced, so that no name stops it."""
    target = console or Console()
    with target.capture() as captured:
        target.print(render(report))
    encoding = target.encoding or "utf-8"
    target.file.write(captured.get().encode(encoding, "replace").decode(encoding))
    target.file.flush()


def render(report: Contents) -> RenderableType:
    """The report as something that rich prints."""
    parts: list[RenderableType] = [Text(report.title, style="bold"), *(Text(fact) for fact in report.facts)]
    parts += [as_rich(table) for table in report.tables]
    parts += [Text(f"\n{sentence}") for sentence in report.sentences]
    if report.warnings:
        parts.append(Text("\nBefore you trust these figures:", style="bold"))
        parts += [_bullet(warning) for warning in report.warnings]
    return Group(*parts)


def _bullet(text: str) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row("-", Text(text))
    return grid
