"""What a report says, in the words that a reader sees: the same in a terminal and in every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wdct_dist.config.schema import Config
from wdct_dist.report import change, differences, effects
from wdct_dist.report.facts import facts
from wdct_dist.report.findings import Findings, Scores
from wdct_dist.report.headline import comparisons, consistency_table, domain_table, domains_of, trust_table
from wdct_dist.report.layout import Table
from wdct_dist.report.published import beside_the_paper
from wdct_dist.report.rows import Row, families_as_one, rows_of
from wdct_dist.report.steadiness import language_table, repetition, steadiness_table
from wdct_dist.report.warnings import warnings


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what is long is shown; all of it is on disk."""

    domains_a_table: int
    differences: int
    effect_tables: int
    changes: int


WHOLE = Limits(10**9, 10**9, 10**9, 10**9)
TERMINAL = Limits(5, differences.MOST_ROWS, effects.MOST_TABLES, change.MOST_ROWS)
"""Five domains fit beside a name in 80 columns."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A report, top to bottom."""

    title: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def contents(found: Findings, limits: Limits = WHOLE) -> Contents:
    """What a report of `found` says; without tables where there are no answers yet."""
    said = (*facts(found.config, found.provenance), *found.notes)
    rows = families_as_one(rows_of(found.scores.summary), found.config.variants)
    if not rows:
        return Contents(found.config.report.title, said, (), ("No figures: there are no answers yet; `wdct evaluate` writes them.",), ())
    return Contents(
        found.config.report.title,
        said,
        tuple(_tables(found.scores, rows, limits)),
        (*change.sentences(found.scores.change), *headline(rows, found.config), *repetition(rows, found.config.sampling.temperature)),
        tuple(warnings(found.scores.summary, found.config.report)),
    )


def headline(rows: Sequence[Row], config: Config) -> list[str]:
    """What the figures come to, in words."""
    return [*comparisons(rows), *(beside_the_paper(rows) if config.protocol is not None else [])]


def _tables(scores: Scores, rows: Sequence[Row], limits: Limits) -> Iterator[Table]:
    yield consistency_table(rows)
    yield trust_table(rows)
    if scores.change is not None and not scores.change.is_empty():
        yield from change.change_tables(scores.change, limits.changes)
    domains = domains_of(rows)
    for start in range(0, len(domains), limits.domains_a_table):
        yield domain_table(rows, domains[start : start + limits.domains_a_table])
    yield from (table for table in (steadiness_table(rows), language_table(rows)) if table is not None)
    if scores.effects is not None:
        yield from effects.effect_tables(scores.effects, limits.effect_tables)
    if scores.differences is not None and (table := differences.difference_table(scores.differences, limits.differences)) is not None:
        yield table
