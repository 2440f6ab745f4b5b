"""The report in a terminal: tables of figures, and warnings in words where a figure should not be trusted.

A function of the summary and of what the run says of itself; works at 80 columns, and without a terminal as plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from wdct_dist.config.schema import Config
from wdct_dist.report.differences import difference_table
from wdct_dist.report.effects import effect_tables
from wdct_dist.report.facts import facts
from wdct_dist.report.headline import comparisons, consistency_table, domain_table, domains_of, trust_table
from wdct_dist.report.layout import Table, as_rich
from wdct_dist.report.published import beside_the_paper
from wdct_dist.report.rows import Row, Scores, families_as_one, rows_of
from wdct_dist.report.steadiness import language_table, repetition, steadiness_table
from wdct_dist.report.warnings import warnings

DOMAINS_A_TABLE = 5
"""Columns that fit beside a name in 80 columns."""


def print_report(
    scores: Scores, config: Config, provenance: Mapping[str, Any], notes: Iterable[str] = (), console: Console | None = None
) -> None:
    """Prints the report of a run, `notes` at its head. What the output's encoding cannot say is replaced, so that no name stops it."""
    target = console or Console()
    with target.capture() as captured:
        target.print(render(scores, config, [*facts(config, provenance), *notes]))
    encoding = target.encoding or "utf-8"
    target.file.write(captured.get().encode(encoding, "replace").decode(encoding))
    target.file.flush()


def render(scores: Scores, config: Config, notes: Sequence[str] = ()) -> RenderableType:
    """The report as something that rich prints; `notes` stand on top."""
    rows = families_as_one(rows_of(scores.summary))
    parts: list[RenderableType] = [Text(config.report.title, style="bold"), *(Text(note) for note in notes)]
    if not rows:
        return Group(*parts, Text("\nNo figures: there are no answers yet; `wdct evaluate` writes them."))
    parts += [as_rich(table) for table in _tables(scores, rows)]
    sentences = [*comparisons(rows), *repetition(rows, config.sampling.temperature)]
    if config.protocol is not None:
        sentences += beside_the_paper(rows)
    parts += [Text(f"\n{sentence}") for sentence in sentences]
    found = warnings(scores.summary, config.report)
    if found:
        parts.append(Text("\nBefore you trust these figures:", style="bold"))
        parts += [_bullet(warning) for warning in found]
    return Group(*parts)


def _tables(scores: Scores, rows: Sequence[Row]) -> Iterator[Table]:
    yield consistency_table(rows)
    yield trust_table(rows)
    domains = domains_of(rows)
    for start in range(0, len(domains), DOMAINS_A_TABLE):
        yield domain_table(rows, domains[start : start + DOMAINS_A_TABLE])
    yield from (table for table in (steadiness_table(rows), language_table(rows)) if table is not None)
    if scores.effects is not None:
        yield from effect_tables(scores.effects)
    if scores.differences is not None and (table := difference_table(scores.differences)) is not None:
        yield table


def _bullet(text: str) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row("-", Text(text))
    return grid
