"""How the tables of the terminal report look: at 80 columns, figures never cut or folded, names folded where they are long."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def plain_table(title: str, names: str, columns: Iterable[str]) -> Table:
    """A table whose first column holds names, under the heading `names`, and whose others hold figures."""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column(Text(names), overflow="fold", min_width=10, vertical="bottom")
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True, vertical="bottom")
    return table


def noted(table: Table, notes: Iterable[str]) -> RenderableType:
    """A table with what its reader has to know below it, a line each; rich's captions are as narrow as their table."""
    return Group(table, *(Text(note, style="dim") for note in notes))
