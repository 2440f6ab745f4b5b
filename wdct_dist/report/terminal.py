"""The report in a terminal: tables of figures, and warnings in words where a figure should not be trusted.

A function of the summary and of what the run says of itself; works at 80 columns, and without a terminal as plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.report.differences import difference_table
from wdct_dist.report.effects import effect_tables
from wdct_dist.report.layout import noted, plain_table
from wdct_dist.report.published import beside_the_paper
from wdct_dist.report.rows import ALL, Row, families_as_one, namer, rows_of
from wdct_dist.report.steadiness import language_table, repetition, steadiness_table
from wdct_dist.report.warnings import warnings

if TYPE_CHECKING:
    import polars as pl

DOMAINS_A_TABLE = 5
"""Columns that fit beside a name in 80 columns."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The tables that a report is made from; those of comparisons may be missing."""

    summary: pl.DataFrame
    differences: pl.DataFrame | None = None
    effects: pl.DataFrame | None = None


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


def facts(config: Config, provenance: Mapping[str, Any]) -> list[str]:
    """What a reader needs beside the figures, one line each: the items, the precision, the intervals, what is not there."""
    lines = [f"run {config.run_dir}"]
    data = provenance.get("data", {})
    if "items" in data:
        lines.append(f"{data['items']:,} items of {data.get('path', config.data.path)}")
    lines.append(f"{_engine(config, provenance)}, orders {config.orders.value}, trials {config.trials}")
    if config.trials > 1:
        lines[-1] += f", temperature {config.sampling.temperature:g}"
    if config.metrics.bootstrap_resamples:
        lines.append(
            f"intervals: {100 * config.metrics.level:g} %, percentile bootstrap over items, "
            f"{config.metrics.bootstrap_resamples:,} resamples, seed {config.metrics.bootstrap_seed}"
        )
    lines += provenance.get("paraphrases", [])[:1]
    lines += [
        f"checkpoint {one['checkpoint_id']}: {one['source']}" for one in provenance.get("checkpoints", []) if one.get("kind") == "adapter"
    ]
    lines += [f"checkpoint {name} failed: {reason}" for name, reason in provenance.get("failed_checkpoints", {}).items()]
    return lines


def _engine(config: Config, provenance: Mapping[str, Any]) -> str:
    if config.engine.kind is EngineKind.scripted:
        return "engine scripted: pseudo-answers, no model"
    if config.engine.kind is EngineKind.endpoint:
        return f"engine endpoint at {config.engine.endpoint.base_url}: weights and precision unknown"
    precision = config.engine.dtype.value
    if precision == "auto":
        stated = sorted({str(one["dtype"]) for one in provenance.get("checkpoints", []) if one.get("dtype")})
        precision = "as the checkpoints state it" + (f" ({', '.join(stated)})" if stated else "")
    return f"engine {config.engine.kind.value}, precision {precision}"


def render(scores: Scores, config: Config, notes: Sequence[str] = ()) -> RenderableType:
    """The report as something that rich prints; `notes` stand on top."""
    rows = families_as_one(rows_of(scores.summary))
    parts: list[RenderableType] = [Text(config.report.title, style="bold"), *(Text(note) for note in notes)]
    if not rows:
        return Group(*parts, Text("\nNo figures: there are no answers yet; `wdct evaluate` writes them."))
    names = ", ".join(["checkpoint", *(part for part in ("variant", "language") if len({getattr(row, part) for row in rows}) > 1)])
    parts += [_consistency(rows, names), _trust(rows, names), *_by_domain(rows, names)]
    parts += [table for table in (steadiness_table(rows, names), language_table(rows, names)) if table is not None]
    if scores.effects is not None:
        parts += effect_tables(scores.effects)
    if scores.differences is not None and (table := difference_table(scores.differences)) is not None:
        parts.append(table)
    sentences = [*comparisons(rows), *repetition(rows, config.sampling.temperature)]
    if config.protocol is not None:
        sentences += beside_the_paper(rows)
    parts += [Text(f"\n{sentence}") for sentence in sentences]
    found = warnings(scores.summary, config.report)
    if found:
        parts.append(Text("\nBefore you trust these figures:", style="bold"))
        parts += [_bullet(warning) for warning in found]
    return Group(*parts)


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
        worst, *_, best = sorted(members, key=lambda row: row.value("cs") or 0.0)
        high, low = best.figure("cs"), worst.figure("cs")
        if high.value == low.value:
            sentences.append(f"{where}The {len(members)} checkpoints have the same CS, {high}.")
            continue
        said = f"{where}CS is highest for {best.checkpoint_id} ({high.with_interval}) and lowest for {worst.checkpoint_id} "
        said += f"({low.with_interval})"
        if high.low is not None and low.high is not None:
            apart = high.low > low.high
            said += "; their intervals do not overlap" if apart else "; their intervals overlap, so this alone does not order them"
        sentences.append(said + ".")
    return sentences


def _consistency(rows: Sequence[Row], names: str) -> Table:
    table = plain_table("Consistency", names, ("CS [interval]", "PCS [interval]", "chance", "items"))
    name = namer(rows)
    for row in rows:
        cs, pcs = row.figure("cs"), row.figure("pcs")
        table.add_row(Text(name(row)), cs.with_interval, pcs.with_interval, str(row.figure("cs_chance")), f"{cs.num_items:,}")
    return table


def _trust(rows: Sequence[Row], names: str) -> RenderableType:
    shown = {
        "CS\ndebiased": "cs_debiased",
        "PCS\ndebiased": "pcs_debiased",
        "CS stable\n(items)": "cs_stable",
        "label\nmass": "label_mass",
        "\nanswered": "parse_rate",
        "\nties": "tie_rate",
    }
    table = plain_table("How far to trust it", names, shown)
    name = namer(rows)
    for row in rows:
        figures = {metric: str(row.figure(metric)) for metric in shown.values()}
        # A share of the items that may be a handful: its number stands beside it.
        if (ALL, "cs_stable") in row.figures:
            figures["cs_stable"] += f" ({row.figure('cs_stable').num_items:,})"
        table.add_row(Text(name(row)), *figures.values())
    families = sorted({row.variant for row in rows if row.value("cs_averaged") is not None})
    said = [
        f"{name}: debiased is over all members and orders, from their averaged probabilities; label mass, answered and ties are those of "
        "the worst member; each member is in scores/summary.csv"
        for name in families
    ]
    return noted(table, said)


def _by_domain(rows: Sequence[Row], names: str) -> list[Table]:
    domains = list(dict.fromkeys(domain for row in rows for domain, _ in row.figures if domain != ALL))
    name = namer(rows)
    tables = []
    for start in range(0, len(domains), DOMAINS_A_TABLE):
        chosen = domains[start : start + DOMAINS_A_TABLE]
        table = plain_table("CS by domain", names, chosen)
        for row in rows:
            table.add_row(Text(name(row)), *(str(row.figure("cs", domain)) for domain in chosen))
        tables.append(table)
    return tables


def _bullet(text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row("-", Text(text))
    return grid
