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


LONGEST_FIGURE = 30
"""Characters; what is longer is words, such as a setting's value, and is folded where a table is too wide."""

SHORTEST_NAME = 10
"""Characters to which the names are folded at most."""


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
        pad_edge=False,
    )
    found.add_column(Text(table.names), overflow="fold", min_width=SHORTEST_NAME, vertical="bottom")
    for column, (least, is_words) in zip(table.columns, _needs(table), strict=True):
        found.add_column(Text(column), justify="right", no_wrap=not is_words, overflow="fold", vertical="bottom", min_width=least)
    for name, row in zip(_said_once(table), table.rows, strict=True):
        found.add_row(Text(name), *row[1:])
    return Group(found, *(Text(note, style="dim") for note in table.notes))


def least_width(table: Table) -> int:
    """The columns of a terminal that `as_rich` needs to cut nothing: two blanks between its columns."""
    needs = [SHORTEST_NAME, *(least for least, _ in _needs(table))]
    return sum(needs) + 2 * (len(needs) - 1)


def _needs(table: Table) -> list[tuple[int, bool]]:
    """Of each column but the names its least width, and whether it holds words, which may be folded."""
    from rich.cells import cell_len

    found = []
    for index, column in enumerate(table.columns, start=1):
        cells = (column, *(row[index] for row in table.rows))
        longest = max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0)
        is_words = longest > LONGEST_FIGURE
        found.append((LONGEST_FIGURE // 2 if is_words else longest, is_words))
    return found


def _said_once(table: Table) -> Iterator[str]:
    before = None
    for name, *_ in table.rows:
        yield name if name != before else ""
        before = name
