"""What alignment changed: how many answers, on the side that was aligned and on the other one, and what became of consistency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wdct_dist.report.differences import p_value_text
from wdct_dist.report.layout import Table
from wdct_dist.report.rows import ALL, Figure

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 24
"""Rows of a table that a terminal shows; all are in scores/change.arrow."""

MOST_SENTENCES = 6

SPLITS = {"train": "trained items", "held_out": "held-out items", ALL: "all items"}
"""In the words that a reader sees."""

MEASURES = {"cs": "CS", "pcs": "PCS"}

TRAINED_AS = "direct"
"""The variant that alignment trains on, which the sentences are about where it was evaluated."""

AS_SHOWN = {"word": "words", "deed": "deeds"}

Record = dict[str, Any]


def sentences(change: pl.DataFrame | None) -> list[str]:
    """Of each branch's last checkpoint, what was trained and what followed. `change` has the columns of SCORES_CHANGE."""
    if change is None:
        return []
    records = [one for one in change.filter(domain=ALL, split="train").iter_rows(named=True) if one["metric"].endswith("_change")]
    ways = list(dict.fromkeys((one["variant"], one["language"]) for one in records))
    way = next((one for one in ways if one[0] == TRAINED_AS), ways[0] if ways else None)
    last: dict[tuple[str, str], dict[str, Record]] = {}
    for one in records:  # a branch's stages come in the order in which they were trained, as the run's checkpoints do
        if (one["variant"], one["language"]) == way:
            last.setdefault((one["branch"], one["target_side"]), {})[one["metric"]] = one
    said = []
    for (_, side), found in last.items():
        if "direct_change" in found and "indirect_change" in found:
            direct, indirect = found["direct_change"], found["indirect_change"]
            other = "deeds" if side == "word" else "words"
            said.append(
                f"{'Control ' * direct['control']}{direct['checkpoint_id']}: {side}s turned to the target option for "
                f"{_figure(direct).with_interval} of {direct['n']:,} trained items (direct change), {other} for "
                f"{_figure(indirect).with_interval} of the {indirect['n']:,} where they were not there already (indirect change)."
            )
    return said[:MOST_SENTENCES]


def change_tables(change: pl.DataFrame, most_rows: int = MOST_ROWS, domain: str = ALL) -> Iterator[Table]:
    """Change rates of trained items, then of held-out ones, then consistency before and after; columns of SCORES_CHANGE."""
    chosen = change.filter(domain=domain)
    where = "" if domain == ALL else f", {domain}"
    named = _namer(change)
    for split in ("train", "held_out"):
        records = chosen.filter(split=split).to_dicts()
        if rows := _rate_rows(records, named):
            yield _cut(_rates(f"Changed answers, {SPLITS[split]}{where}", rows, _unanswered(records)), most_rows)
    if rows := _consistency_rows(chosen.to_dicts(), named):
        columns = ("measure", "before", "after", "change [interval]", "p (Holm)")
        notes = (
            "p: McNemar's exact test of the debiased decisions before and after, corrected by Holm's method; trained, held-out and "
            "all items apart",
            "before, after: on the items that have a value both times",
        )
        yield _cut(Table(f"Consistency before and after alignment{where}", "checkpoint", columns, rows, notes), most_rows)


def domains_of(change: pl.DataFrame) -> list[str]:
    """The domains that have change rates, without `all`."""
    return [name for name in change["domain"].unique(maintain_order=True) if name != ALL]


def _rates(title: str, rows: tuple[tuple[str, ...], ...], unanswered: int) -> Table:
    notes = [
        "direct: answers on the aligned side that are now the target option; items: how many changed, of how many",
        "indirect: answers on the other side that are now the corresponding option, of those that were not before",
    ]
    if unanswered:
        notes.append(f"in {unanswered:,} cases there was no answer after alignment; they count as not changed")
    columns = ("direct [interval]", "direct\nitems", "indirect [interval]", "indirect\nitems")
    return Table(title, "checkpoint", columns, rows, tuple(notes))


def _rate_rows(records: Sequence[Record], named: Callable[[Record], str]) -> tuple[tuple[str, ...], ...]:
    found: dict[str, list[str]] = {}
    for metric in ("direct_change", "indirect_change"):
        for one in records:
            if one["metric"] == metric:
                found.setdefault(named(one), []).extend((_figure(one).with_interval, f"{one['n_changed']:,}/{one['n']:,}"))
    return tuple((name, *cells) for name, cells in found.items())


def _unanswered(records: Iterable[Record]) -> int:
    return sum(one["n_no_answer"] or 0 for one in records if one["metric"] in ("direct_change", "indirect_change"))


def _consistency_rows(records: Sequence[Record], named: Callable[[Record], str]) -> tuple[tuple[str, ...], ...]:
    by_name: dict[tuple[str, str], dict[str, Record]] = {}
    for one in records:
        by_name.setdefault((named(one), one["split"]), {})[one["metric"]] = one
    return tuple(
        (
            f"{name}, {SPLITS[split]}",
            measure,
            str(_figure(found[f"{metric}_before"])),
            str(_figure(found[f"{metric}_after"])),
            _signed(found[f"{metric}_change"]),
            p_value_text(found["cs_debiased_change"]["p_holm"]) if metric == "cs" else "",
        )
        for (name, split), found in by_name.items()
        for metric, measure in MEASURES.items()
        if f"{metric}_change" in found
    )


def _namer(change: pl.DataFrame) -> Callable[[Record], str]:
    """Names a row by its checkpoint, with aligned side, variant and language where rows differ in them."""
    more = [name for name in ("target_side", "variant", "language") if change[name].n_unique() > 1]
    return lambda one: ", ".join(
        [str(one["checkpoint_id"]) + " (control)" * one["control"], *(AS_SHOWN.get(str(one[name]), str(one[name])) for name in more)]
    )


def _figure(one: Record) -> Figure:
    return Figure(one["value"], one["ci_low"], one["ci_high"], one["n"])


def _signed(one: Record) -> str:
    if one["value"] is None:
        return "-"
    return f"{one['value']:+.3f}" + ("" if one["ci_low"] is None else f" [{one['ci_low']:+.3f}, {one['ci_high']:+.3f}]")


def _cut(table: Table, most_rows: int) -> Table:
    if len(table.rows) <= most_rows:
        return table
    said = f"{most_rows} of {len(table.rows):,} rows; all are in scores/change.arrow"
    return Table(table.title, table.names, table.columns, table.rows[:most_rows], (*table.notes, said))
