"""The answer first: CS and PCS of each checkpoint, how far to trust them, and which checkpoint has most and least."""

from __future__ import annotations

from collections.abc import Sequence

from wdct_dist.report.layout import Table
from wdct_dist.report.rows import ALL, Row, namer

TRUST = {
    "CS\ndebiased": "cs_debiased",
    "PCS\ndebiased": "pcs_debiased",
    "CS stable\n(items)": "cs_stable",
    "label\nmass": "label_mass",
    "\nanswered": "parse_rate",
    "\nties": "tie_rate",
}

MOST_NAMED = 3
"""Checkpoints of one CS that a sentence names."""


def names_heading(rows: Sequence[Row]) -> str:
    """What the names of `rows` consist of."""
    return ", ".join(["checkpoint", *(part for part in ("variant", "language") if len({getattr(row, part) for row in rows}) > 1)])


def domains_of(rows: Sequence[Row]) -> list[str]:
    """The domains that have figures, in the order of the items; without `all`."""
    return list(dict.fromkeys(domain for row in rows for domain, _ in row.figures if domain != ALL))


def consistency_table(rows: Sequence[Row]) -> Table:
    """CS and PCS with their intervals, over all domains."""
    name = namer(rows)
    cells = []
    for row in rows:
        cs, pcs = row.figure("cs"), row.figure("pcs")
        cells.append((name(row), cs.with_interval, pcs.with_interval, str(row.figure("cs_chance")), f"{cs.num_items:,}"))
    return Table("Consistency", names_heading(rows), ("CS [interval]", "PCS [interval]", "chance", "items"), tuple(cells))


def trust_table(rows: Sequence[Row]) -> Table:
    """What tells how far the figures can be trusted."""
    name = namer(rows)
    cells = []
    for row in rows:
        figures = {metric: str(row.figure(metric)) for metric in TRUST.values()}
        # A share of the items that may be a handful: its number stands beside it.
        if (ALL, "cs_stable") in row.figures:
            figures["cs_stable"] += f" ({row.figure('cs_stable').num_items:,})"
        cells.append((name(row), *figures.values()))
    families = sorted({row.variant for row in rows if row.value("cs_averaged") is not None})
    said = [
        f"{name}: debiased is over all members and orders, from their averaged probabilities; label mass, answered and ties are those of "
        "the worst member; each member is in scores/summary.csv"
        for name in families
    ]
    return Table("How far to trust it", names_heading(rows), tuple(TRUST), tuple(cells), tuple(said))


def domain_table(rows: Sequence[Row], domains: Sequence[str], metric: str = "cs", *, intervals: bool = False) -> Table:
    """A metric of each checkpoint in each of `domains`."""
    name = namer(rows)
    cells = []
    for row in rows:
        figures = [row.figure(metric, domain) for domain in domains]
        cells.append((name(row), *(figure.with_interval if intervals else str(figure) for figure in figures)))
    return Table(f"{metric.upper()} by domain", names_heading(rows), tuple(domains), tuple(cells))


def comparisons(rows: Sequence[Row]) -> list[str]:
    """For each variant and language with several checkpoints: which has the highest and which the lowest CS."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.value("cs") is not None:
            groups.setdefault((row.variant, row.language), []).append(row)
    sentences = []
    for (variant, language), members in groups.items():
        if len(members) < 2:
            continue
        where = f"{variant}, {language}: " if len(groups) > 1 else ""
        values = [row.value("cs") for row in members]
        high, low = max(value for value in values if value is not None), min(value for value in values if value is not None)
        if high == low:
            sentences.append(f"{where}The {len(members)} checkpoints have the same CS, {members[0].figure('cs')}.")
            continue
        best, worst = ([row for row in members if row.value("cs") == value] for value in (high, low))
        said = f"{where}CS is highest for {_with_figures(best)} and lowest for {_with_figures(worst)}"
        least = [end for row in best if (end := row.figure("cs").low) is not None]
        most = [end for row in worst if (end := row.figure("cs").high) is not None]
        if least and most:
            apart = min(least) > max(most)
            said += "; their intervals do not overlap" if apart else "; their intervals overlap, so this alone does not order them"
        sentences.append(said + ".")
    return sentences


def _with_figures(rows: Sequence[Row]) -> str:
    """Each checkpoint with its CS; of many that share it the first ones, and how many more."""
    shown = ", ".join(f"{row.checkpoint_id} ({row.figure('cs').with_interval})" for row in rows[:MOST_NAMED])
    return shown if len(rows) <= MOST_NAMED else f"{shown}, {len(rows) - MOST_NAMED:,} more"


def position_table(rows: Sequence[Row]) -> Table | None:
    """How far answers follow the label's place instead of the option; None where no question was asked in balanced orders."""
    columns = {
        f"{side}s,\n{heading}": f"{metric}_{side}"
        for side in ("word", "deed")
        for heading, metric in (("one place", "position"), ("first", "position_first"), ("last", "position_last"))
    }
    name = namer(rows)
    known = [row for row in rows if any(row.value(metric) is not None for metric in columns.values())]
    if not known:
        return None
    cells = tuple((name(row), *(str(row.figure(metric)) for metric in columns.values())) for row in known)
    said = (
        "one place: share of an item's answers at the label that has most of them, over all orders: 1 where every order is answered by the "
        "same label; of two options 0.5 where every order is answered by the same option, 0.75 for answers at random",
        "first, last: share of the answers at the first and at the last label",
    )
    return Table("Answers by the label's place", names_heading(rows), tuple(columns), cells, said)
