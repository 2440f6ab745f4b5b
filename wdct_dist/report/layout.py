"""A table of figures as every report has it, and how a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Table:
    """Figures beside names, in the words that a reader sees."""

    title: str
    names: str
    """Heading of the first column, which holds names; all others hold figures."""
    columns: tuple[str, ...]
    """Headings; a line break in one is where a narrow table folds it."""
    rows: tuple[tuple[str, ...], ...]
    """Each a name and its figures."""
    notes: tuple[str, ...] = ()
    """What its reader has to know."""


def as_rich(table: Table) -> RenderableType:
    """The table for a terminal of 80 columns: figures never cut or folded, names folded where they are long.

    A name that is that of the row above is left blank. Notes stand below; rich's captions would be as narrow as their table.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    found = RichTable(
        title=f"\n{table.title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    found.add_column(Text(table.names), overflow="fold", min_width=10, vertical="bottom")
    for column in table.columns:
        found.add_column(Text(column), justify="right", no_wrap=True, vertical="bottom")
    for name, row in zip(_said_once(table), table.rows, strict=True):
        found.add_row(Text(name), *row[1:])
    return Group(found, *(Text(note, style="dim") for note in table.notes))


def _said_once(table: Table) -> Iterator[str]:
    before = None
    for name, *_ in table.rows:
        yield name if name != before else ""
        before = name
