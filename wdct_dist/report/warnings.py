"""Why figures should not be trusted, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wdct_dist.config.schema import ReportConfig
from wdct_dist.metrics.factors import family
from wdct_dist.report.rows import Row, families_as_one, namer, rows_of

if TYPE_CHECKING:
    import polars as pl

MAX_TIE_RATE = 0.1
"""Warn above it: bfloat16 engines were measured at 0.13, float32 engines at 0."""
MAX_REFUSAL_RATE = 0.1
"""Warn where more of the replies than this decline."""
MIN_TRIAL_AGREEMENT = 0.8
"""Warn below it: trials of two options that are drawn evenly agree in half of the pairs."""
MAX_REASONING_CUT = 0.1
"""Warn where more of the reasonings than this were cut at their limit."""
NAMED_AT_MOST = 5
"""Places that a warning names."""

Fault = Callable[[Row], tuple[float, str] | None]
"""How bad a row is, and in words; None where nothing is wrong with it."""


def warnings(summary: pl.DataFrame, settings: ReportConfig) -> list[str]:
    """One sentence or two for each cause, over all domains. A family of variants is named once, by its worst member."""
    rows = rows_of(summary)
    name = namer(families_as_one(rows))
    found = []
    if without := [name(row) for row in families_as_one(rows) if row.value("cs") is None]:
        found.append(f"No CS for {_listed(without)}: no item has an answer on both sides. The column `error` of the answers says why.")
    if places := _places(rows, _below("label_mass", settings.min_label_mass)):
        found.append(
            f"Label mass under report.min_label_mass={settings.min_label_mass:g} for {places}: most of the probability falls "
            "on something that is not a label, so the figures judge a remainder. Begin the reply with prompt.answer_prefix "
            "(for example `Answer:`), or choose another prompt.format or prompt.labels."
        )
    if places := _places(rows, _below("parse_rate", settings.min_parse_rate, _bounds)):
        found.append(
            f"Fewer prompts than report.min_parse_rate={settings.min_parse_rate:g} have an answer that can be read for {places}. "
            "The column `error` of the answers says why they are missing, and `wdct score` shows replies that cannot be read; if the run "
            "is not finished, give the same `wdct evaluate` again."
        )
    if places := _places(rows, lambda row: _positions(row, settings.max_position_share)):
        found.append(
            f"Answers follow the label's place, not the option, above report.max_position_share={settings.max_position_share:g}, for "
            f"{places}: words and deeds then agree or differ by their orders, and CS stays near chance. Read the debiased "
            "CS, and try other prompt.labels or prompt.format."
        )
    if places := _places(rows, _above("tie_rate", MAX_TIE_RATE)):
        found.append(
            f"More than {MAX_TIE_RATE:g} of the answers are exact ties for {places}: tied options share the answer evenly, which "
            "draws CS to chance. Set engine.dtype=float32, since bfloat16 cannot tell such options apart."
        )
    if places := _places(rows, _above("refusal_rate", MAX_REFUSAL_RATE)):
        found.append(
            f"More than {MAX_REFUSAL_RATE:g} of the replies decline to answer for {places}: what the model would not say is judged by its "
            "probabilities, or left out where there are none. `wdct score` shows such replies; try another prompt.system or variant."
        )
    if places := _places(rows, _below("trial_agreement", MIN_TRIAL_AGREEMENT)):
        found.append(
            f"Two trials of an item give the same answer less often than {MIN_TRIAL_AGREEMENT:g} for {places}: a single answer is largely "
            "chance, and the intervals, which are over items, do not say so. Give more trials, or a lower sampling.temperature."
        )
    if places := _places(rows, _above("reasoning_cut", MAX_REASONING_CUT)):
        found.append(
            f"More than {MAX_REASONING_CUT:g} of the reasonings reached sampling.max_new_tokens and were cut for {places}: the answer is "
            "read behind what there is of them. They are the rows of the answers whose finish_reason is `length`; give them more room."
        )
    if most := max((row.figure("suspicious_rate") for row in rows), key=lambda figure: figure.value or 0.0, default=None):
        count = round((most.value or 0.0) * most.num_items)
        if count:
            found.append(
                f"{count:,} of {most.num_items:,} items are suspicious, for example with options that say the same. They are counted; "
                "`wdct check` on the item file lists them, and `flags` in scores/items.arrow marks them. Mend them, or take them out."
            )
    return found


def _below(metric: str, limit: float, more: Callable[[Row], str] = lambda row: "") -> Fault:
    def fault(row: Row) -> tuple[float, str] | None:
        value = row.value(metric)
        return (limit - value, f"{value:.3f}{more(row)}") if value is not None and value < limit else None

    return fault


def _above(metric: str, limit: float) -> Fault:
    def fault(row: Row) -> tuple[float, str] | None:
        value = row.value(metric)
        return (value - limit, f"{value:.3f}") if value is not None and value > limit else None

    return fault


def _bounds(row: Row) -> str:
    # not what CS can be: where an item lacks the answers of some orders, those that are there stand for it
    return f", CS from {row.figure('cs_lower')} to {row.figure('cs_upper')} as items without any answer differ or match"


def _positions(row: Row, limit: float) -> tuple[float, str] | None:
    """On which side answers follow the label's place, and which place."""
    said, worst = [], 0.0
    for side in ("word", "deed"):
        share, first, last = (row.value(f"{metric}_{side}") for metric in ("position", "position_first", "position_last"))
        if share is not None and share > limit:
            place = f", first label {first:.3f}, last label {last:.3f}" if first is not None and last is not None else ""
            said.append(f"{side} {share:.3f}{place}")
            worst = max(worst, share)
    return (worst, "; ".join(said)) if said else None


def _places(rows: Sequence[Row], fault: Fault) -> str:
    """Where something is wrong, each place with what; empty where nothing is."""
    name = namer(families_as_one(rows))
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.checkpoint_id, family(row.variant) or row.variant, row.language), []).append(row)
    places = []
    for (checkpoint_id, variant, language), group in groups.items():
        members = [row for row in group if family(row.variant) is not None]
        faults = [(*found, row.variant) for row in members or group if (found := fault(row)) is not None]
        if not faults:
            continue
        _, said, worst = max(faults)
        if members:
            said = f"{len(faults)} of {len(members)} members, the worst {worst.partition('/')[2]}: {said}"
        places.append(f"{name(Row(checkpoint_id, variant, language, {}))} ({said})")
    return _listed(places)


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:NAMED_AT_MOST])
    return shown if len(names) <= NAMED_AT_MOST else f"{shown}; and {len(names) - NAMED_AT_MOST:,} more"
