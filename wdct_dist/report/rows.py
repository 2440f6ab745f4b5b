"""The summary as a report reads it: one row a way of asking, and a family of variants as one row, not one a member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wdct_dist.metrics.factors import family

if TYPE_CHECKING:
    import polars as pl

ALL = "all"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its interval; None is undefined."""

    value: float | None
    low: float | None
    high: float | None
    num_items: int

    def __str__(self) -> str:
        return "-" if self.value is None else f"{self.value:.3f}"

    @property
    def with_interval(self) -> str:
        """`0.710 [0.670, 0.750]`; without an interval where there is none."""
        return str(self) if self.low is None or self.high is None else f"{self} [{self.low:.3f}, {self.high:.3f}]"


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


AVERAGED = {"cs_debiased": "cs_averaged", "pcs_debiased": "pcs_averaged"}
"""What a family has in the place of the debiased figures: those of the probabilities averaged over its members."""

WORST: dict[str, Callable[..., Figure]] = {
    **dict.fromkeys(("parse_rate", "label_mass", "stable_word", "stable_deed", "trial_agreement", "bit_stable", "parsed_agreement"), min),
    **dict.fromkeys(("tie_rate", "refusal_rate", "reasoning_cut", "suspicious_rate"), max),
}
"""Which of its members' figures a family shows: how far it can be trusted is said of the member that can be trusted least."""


def rows_of(summary: pl.DataFrame) -> list[Row]:
    """The summary's rows put together by checkpoint, variant and language, in the summary's order."""
    gathered: dict[tuple[str, str, str], dict[tuple[str, str], Figure]] = {}
    columns = ("checkpoint_id", "variant", "language", "domain", "metric", "value", "ci_low", "ci_high", "n")
    for checkpoint_id, variant, language, domain, metric, value, low, high, n in summary.select(columns).iter_rows():
        gathered.setdefault((checkpoint_id, variant, language), {})[domain, metric] = Figure(value, low, high, n)
    return [Row(*name, figures) for name, figures in gathered.items()]


def families_as_one(rows: Sequence[Row], variants: Sequence[str] = ()) -> list[Row]:
    """The rows of variants that stand alone and of families, checkpoint by checkpoint; members are left to the tables on disk.

    `variants`: the order of a checkpoint's rows, as the configuration has it; the summary's where it is empty.

    A family's own row of the summary has what is worked out over its members; `AVERAGED` and `WORST` fill in the rest. A figure that
    all members share (`cs_chance` on the same items) is the family's too.
    """
    members: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if (name := family(row.variant)) is not None:
            members.setdefault((row.checkpoint_id, name, row.language), []).append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(row.checkpoint_id for row in rows))}
    shown = [
        Row(row.checkpoint_id, row.variant, row.language, _of_family(row, members.get((row.checkpoint_id, row.variant, row.language), [])))
        for row in rows
        if family(row.variant) is None
    ]
    asked = {name: place for place, name in enumerate(variants)}
    return sorted(shown, key=lambda row: (order[row.checkpoint_id], asked.get(row.variant, len(asked))))


def _of_family(row: Row, members: Sequence[Row]) -> Mapping[tuple[str, str], Figure]:
    if not members:
        return row.figures
    found = dict(row.figures)
    for key in dict.fromkeys(key for member in members for key in member.figures):
        domain, metric = key
        if metric in AVERAGED:
            found[key] = row.figure(AVERAGED[metric], domain)
        elif key not in found:
            theirs = [figure for member in members if (figure := member.figures.get(key, UNDEFINED)).value is not None]
            if metric in WORST and theirs:
                found[key] = WORST[metric](theirs, key=lambda figure: figure.value)
            elif len({(figure.value, figure.num_items) for figure in theirs}) == 1:
                found[key] = theirs[0]
    return found


def namer(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Names a row by its checkpoint, with variant and language where `rows` differ in them."""
    variants = len({row.variant for row in rows}) > 1
    languages = len({row.language for row in rows}) > 1

    def name(row: Row) -> str:
        return ", ".join([row.checkpoint_id, *([row.variant] * variants), *([row.language] * languages)])

    return name
