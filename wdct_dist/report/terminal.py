"""The report in a terminal: tables of figures, and warnings in words where a figure should not be trusted.

A function of the summary and of what the run says of itself; works at 80 columns, and without a terminal as plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wdct_dist.config.schema import Config, EngineKind, ReportConfig

if TYPE_CHECKING:
    import polars as pl

ALL = "all"
MAX_TIE_RATE = 0.1
"""Warn above it: bfloat16 engines were measured at 0.13, float32 engines at 0."""
DOMAINS_A_TABLE = 5
"""Columns that fit beside a name in 80 columns."""
NAMED_AT_MOST = 5
"""Rows that a warning names."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its interval; None is undefined."""

    value: float | None
    low: float | None
    high: float | None
    num_items: int


UNDEFINED = Figure(None, None, None, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one checkpoint in one variant and language, by (domain, metric)."""

    checkpoint_id: str
    variant: str
    language: str
    figures: Mapping[tuple[str, str], Figure]

    def figure(self, metric: str, domain: str = ALL) -> Figure:
        return self.figures.get((domain, metric), UNDEFINED)

    def value(self, metric: str) -> float | None:
        return self.figure(metric).value


def print_report(
    summary: pl.DataFrame,
    config: Config,
    provenance: Mapping[str, Any],
    console: Console | None = None,
    *,
    notes: Sequence[str] = (),
    more: Sequence[RenderableType] = (),
) -> None:
    """Prints the report of a run, `notes` on top and `more` below. What the output's encoding cannot say is replaced, so that no name
    stops the report."""
    target = console or Console()
    with target.capture() as captured:
        for part in (render(summary, config.report, [*facts(config, provenance), *notes]), *more):
            target.print(part)
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
    if config.metrics.bootstrap_resamples:
        lines.append(
            f"intervals: {100 * config.metrics.level:g} %, percentile bootstrap over items, "
            f"{config.metrics.bootstrap_resamples:,} resamples, seed {config.metrics.bootstrap_seed}"
        )
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


def render(summary: pl.DataFrame, settings: ReportConfig, notes: Sequence[str] = ()) -> RenderableType:
    """The report as something that rich prints. `summary` has the columns of `schema.SCORES_SUMMARY`; `notes` stand on top."""
    rows = rows_of(summary)
    parts: list[RenderableType] = [Text(settings.title, style="bold"), *(Text(note) for note in notes)]
    if not rows:
        return Group(*parts, Text("\nNo figures: there are no answers yet; `wdct evaluate` writes them."))
    parts += [_consistency(rows), _trust(rows), *_by_domain(rows)]
    parts += [Text(f"\n{sentence}") for sentence in comparisons(rows)]
    found = warnings(summary, settings)
    if found:
        parts.append(Text("\nBefore you trust these figures:", style="bold"))
        parts += [_bullet(warning) for warning in found]
    return Group(*parts)


def rows_of(summary: pl.DataFrame) -> list[Row]:
    """The summary's rows put together by checkpoint, variant and language, in the summary's order."""
    gathered: dict[tuple[str, str, str], dict[tuple[str, str], Figure]] = {}
    columns = ("checkpoint_id", "variant", "language", "domain", "metric", "value", "ci_low", "ci_high", "n")
    for checkpoint_id, variant, language, domain, metric, value, low, high, n in summary.select(columns).iter_rows():
        gathered.setdefault((checkpoint_id, variant, language), {})[domain, metric] = Figure(value, low, high, n)
    return [Row(*name, figures) for name, figures in gathered.items()]


def comparisons(rows: Sequence[Row]) -> list[str]:
    """For each variant and language with several checkpoints: which has the highest and which the lowest CS.

    A family of variants speaks with one voice, its own row; its members (`family/factor=level`) are in the tables.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.value("cs") is not None and "/" not in row.variant:
            groups.setdefault((row.variant, row.language), []).append(row)
    sentences = []
    for (variant, language), members in groups.items():
        if len(members) < 2:
            continue
        where = f"{variant}, {language}: " if len(groups) > 1 else ""
        worst, *_, best = sorted(members, key=lambda row: row.value("cs") or 0.0)
        high, low = best.figure("cs"), worst.figure("cs")
        if high.value == low.value:
            sentences.append(f"{where}The {len(members)} checkpoints have the same CS, {_number(high)}.")
            continue
        said = f"{where}CS is highest for {best.checkpoint_id} ({_with_interval(high)}) and lowest for {worst.checkpoint_id} "
        said += f"({_with_interval(low)})"
        if high.low is not None and low.high is not None:
            apart = high.low > low.high
            said += "; their intervals do not overlap" if apart else "; their intervals overlap, so this alone does not order them"
        sentences.append(said + ".")
    return sentences


def warnings(summary: pl.DataFrame, settings: ReportConfig) -> list[str]:
    """Why figures of the summary should not be trusted, and what to do: one sentence or two a cause, over all domains."""
    rows = rows_of(summary)
    name = _namer(rows)
    found = []
    if places := [name(row) for row in rows if row.value("cs") is None]:
        found.append(f"No CS for {_listed(places)}: no item has an answer on both sides. The column `error` of the answers says why.")
    if places := _named(rows, name, "label_mass", lambda value: value < settings.min_label_mass):
        found.append(
            f"Label mass under report.min_label_mass={settings.min_label_mass:g} for {_listed(places)}: most of the probability falls "
            "on something that is not a label, so the figures judge a remainder. Begin the reply with prompt.answer_prefix "
            "(for example `Answer:`), or choose another prompt.format or prompt.labels."
        )
    if places := _named(rows, name, "parse_rate", lambda value: value < settings.min_parse_rate):
        bounds = [
            f"{name(row)}: {_number(row.figure('cs_lower'))} to {_number(row.figure('cs_upper'))}"
            for row in rows
            if (row.value("parse_rate") or 0.0) < settings.min_parse_rate
        ]
        found.append(
            f"Fewer prompts than report.min_parse_rate={settings.min_parse_rate:g} have an answer for {_listed(places)}. Whatever the "
            f"missing answers are, CS lies in these bounds: {_listed(bounds)}. The column `error` of the answers says why they are "
            "missing; if the run is not finished, give the same `wdct evaluate` again."
        )
    if places := [f"{name(row)} ({said})" for row in rows if (said := _positions(row, settings.max_position_share))]:
        found.append(
            f"Answers follow the label's place, not the option, above report.max_position_share={settings.max_position_share:g}, for "
            f"{_listed(places)}: words and deeds then agree or differ by their orders, and CS stays near chance. Read the debiased "
            "CS, and try other prompt.labels or prompt.format."
        )
    if places := _named(rows, name, "tie_rate", lambda value: value > MAX_TIE_RATE):
        found.append(
            f"More than {MAX_TIE_RATE:g} of the answers are exact ties for {_listed(places)}: tied options share the answer evenly, which "
            "draws CS to chance. Set engine.dtype=float32, since bfloat16 cannot tell such options apart."
        )
    if most := max((row.figure("suspicious_rate") for row in rows), key=lambda figure: figure.value or 0.0, default=None):
        count = round((most.value or 0.0) * most.num_items)
        if count:
            found.append(
                f"{count:,} of {most.num_items:,} items are suspicious, for example with options that say the same. They are counted; "
                "`wdct check` on the item file lists them, and `flags` in scores/items.arrow marks them. Mend them, or take them out."
            )
    return found


def _consistency(rows: Sequence[Row]) -> Table:
    table = _table("Consistency", rows, ("CS [interval]", "PCS [interval]", "chance", "items"))
    name = _namer(rows)
    for row in rows:
        cs = row.figure("cs")
        figures = (_with_interval(cs), _with_interval(row.figure("pcs")), _number(row.figure("cs_chance")), f"{cs.num_items:,}")
        table.add_row(Text(name(row)), *figures)
    return table


def _trust(rows: Sequence[Row]) -> Table:
    shown = {
        "CS\ndebiased": "cs_debiased",
        "PCS\ndebiased": "pcs_debiased",
        "CS stable\n(items)": "cs_stable",
        "label\nmass": "label_mass",
        "\nanswered": "parse_rate",
        "\nties": "tie_rate",
    }
    table = _table("How far to trust it", rows, shown)
    name = _namer(rows)
    for row in rows:
        figures = {metric: _number(row.figure(metric)) for metric in shown.values()}
        # A share of the items that may be a handful: its number stands beside it.
        figures["cs_stable"] += f" ({row.figure('cs_stable').num_items:,})"
        table.add_row(Text(name(row)), *figures.values())
    return table


def _by_domain(rows: Sequence[Row]) -> list[Table]:
    domains = list(dict.fromkeys(domain for row in rows for domain, _ in row.figures if domain != ALL))
    name = _namer(rows)
    tables = []
    for start in range(0, len(domains), DOMAINS_A_TABLE):
        chosen = domains[start : start + DOMAINS_A_TABLE]
        table = _table("CS by domain", rows, chosen)
        for row in rows:
            table.add_row(Text(name(row)), *(_number(row.figure("cs", domain)) for domain in chosen))
        tables.append(table)
    return tables


def _table(title: str, rows: Sequence[Row], columns: Iterable[str]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    varied = [part for part in ("variant", "language") if len({getattr(row, part) for row in rows}) > 1]
    table.add_column(Text(", ".join(["checkpoint", *varied])), overflow="fold", min_width=10, vertical="bottom")
    for column in columns:
        # A figure is never cut or folded; names are.
        table.add_column(Text(column), justify="right", no_wrap=True, vertical="bottom")
    return table


def _namer(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Names a row by its checkpoint, with variant and language where rows differ in them."""
    variants = len({row.variant for row in rows}) > 1
    languages = len({row.language for row in rows}) > 1

    def name(row: Row) -> str:
        return ", ".join([row.checkpoint_id, *([row.variant] * variants), *([row.language] * languages)])

    return name


def _named(rows: Sequence[Row], name: Callable[[Row], str], metric: str, wrong: Callable[[float], bool]) -> list[str]:
    """The rows whose figure is wrong, with the figure."""
    return [f"{name(row)} ({value:.3f})" for row in rows if (value := row.value(metric)) is not None and wrong(value)]


def _positions(row: Row, limit: float) -> str:
    """On which side answers follow the label's place, and which place; empty where they do not."""
    said = []
    for side in ("word", "deed"):
        share, first, last = (row.value(f"{metric}_{side}") for metric in ("position", "position_first", "position_last"))
        if share is not None and share > limit:
            place = f", first label {first:.3f}, last label {last:.3f}" if first is not None and last is not None else ""
            said.append(f"{side} {share:.3f}{place}")
    return "; ".join(said)


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:NAMED_AT_MOST])
    return shown if len(names) <= NAMED_AT_MOST else f"{shown}; and {len(names) - NAMED_AT_MOST:,} more"


def _bullet(text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row("-", Text(text))
    return grid


def _number(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"


def _with_interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return _number(figure)
    return f"{_number(figure)} [{figure.low:.3f}, {figure.high:.3f}]"
