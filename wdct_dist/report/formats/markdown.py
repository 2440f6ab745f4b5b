"""The report as Markdown with the tables of GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wdct_dist.report.contents import Contents
    from wdct_dist.report.layout import Table

_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def as_markdown(report: Contents) -> str:
    """A document; what comes from data is text in it, whatever signs it has."""
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: Contents) -> Iterator[str]:
    yield f"# {_escaped(report.title)}"
    yield _list(report.facts)
    for table in report.tables:
        yield f"## {_escaped(table.title)}"
        yield _table(table)
        if table.notes:
            yield _list(table.notes)
    yield from map(_escaped, report.sentences)
    if report.warnings:
        yield "## Before you trust these figures"
        yield _list(report.warnings)


def _table(table: Table) -> str:
    lines = [(table.names, *table.columns), *table.rows]
    cells = [f"| {' | '.join(map(_escaped, line))} |" for line in lines]
    return "\n".join([cells[0], f"| --- |{' ---: |' * len(table.columns)}", *cells[1:]])


def _list(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    return _SIGNS.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
