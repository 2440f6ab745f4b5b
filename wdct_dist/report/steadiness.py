"""What might have moved the figures: orders, trials, batching, languages, replies that say something else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wdct_dist.metrics.bit_stability import METRIC as BIT_STABLE
from wdct_dist.report.headline import names_heading
from wdct_dist.report.layout import Table
from wdct_dist.report.rows import Row, namer

COLUMNS = {
    "stable\nwords": "stable_word",
    "stable\ndeeds": "stable_deed",
    "trials\nagree": "trial_agreement",
    "noise\nCS": "noise",
    "noise\nPCS": "noise_pcs",
    "text\nagrees": "parsed_agreement",
    "\nrefused": "refusal_rate",
    "cut\nshort": "reasoning_cut",
}
"""Shown where any row has the figure."""

BOUNDS = "CS bounds"

MEANINGS = {
    "stable_word": "stable: items with the same answer in every order of the options",
    "trial_agreement": "trials agree: pairs of trials with the same answer",
    "noise": "noise: what a figure moves in A/A repeats, when nothing but batching changes",
    "parsed_agreement": "text agrees: replies that name the most probable option, of those that name one",
    "reasoning_cut": "cut short: reasonings that reached sampling.max_new_tokens, scored all the same",
}

AGREEMENT = "agreement_word_"


def steadiness_table(rows: Sequence[Row]) -> Table | None:
    """One row for each of `rows`; None where none of the figures is known."""
    shown = {heading: metric for heading, metric in COLUMNS.items() if any(row.value(metric) is not None for row in rows)}
    bounded = any(row.value("cs_lower") != row.value("cs_upper") for row in rows)
    if not shown and not bounded:
        return None
    name = namer(rows)
    cells = []
    for row in rows:
        bounds = f"{row.figure('cs_lower')} to {row.figure('cs_upper')}" if row.value("cs_lower") is not None else "-"
        cells.append((name(row), *([bounds] * bounded), *(str(row.figure(metric)) for metric in shown.values())))
    said = [MEANINGS[metric] for metric in shown.values() if metric in MEANINGS]
    if bounded:
        said.insert(0, "bounds: items without an answer counted as differing, as matching")
    return Table("How steady it is", names_heading(rows), (*([BOUNDS] * bounded), *shown), tuple(cells), tuple(said))


def language_table(rows: Sequence[Row]) -> Table | None:
    """How often a side gives the same answer in two languages; None where there is but one language."""
    found = []
    name = namer([Row(row.checkpoint_id, row.variant, "", {}) for row in rows])
    for row in rows:
        pairs = [metric.removeprefix(AGREEMENT) for domain, metric in row.figures if domain == "all" and metric.startswith(AGREEMENT)]
        for pair in pairs:
            words, deeds = row.figure(AGREEMENT + pair), row.figure(f"agreement_deed_{pair}")
            found.append((name(row), pair.replace("_", "–"), words.with_interval, deeds.with_interval, f"{words.num_items:,}"))
    if not found:
        return None
    said = "items with the same answer when the side is asked in both languages; the chance is that of CS"
    columns = ("languages", "words [interval]", "deeds [interval]", "items")
    return Table("Agreement across languages", names_heading(rows), columns, tuple(found), (said,))


def repetition(rows: Sequence[Row], temperature: float) -> list[str]:
    """Whether the trials of a run repeat each other bit for bit, in a sentence; none for a single trial."""
    known = [row for row in rows if row.value(BIT_STABLE) is not None]
    if not known:
        return []
    at = f"At sampling.temperature {temperature:g} over the trials: "
    name = namer(rows)
    # rounded down: 99.96 % is not 100.0
    moved = [
        f"{name(row)} in {math.floor(1000 * (row.value(BIT_STABLE) or 0.0) + 1e-9) / 10:.1f} % of prompts"
        for row in known
        if row.value(BIT_STABLE) != 1.0
    ]
    if not moved:
        return [f"{at}bit-stable, every prompt had the same log-probabilities each time."]
    return [f"{at}not bit-stable; the same log-probabilities each time had {'; '.join(moved)}."]
