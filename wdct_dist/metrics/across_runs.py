"""Runs beside each other: figures and paired differences on the items that all of them have, with the same words.

A run's checkpoints are named `run: checkpoint` here. Checkpoints that bear one name in two runs are compared; where no name is in both,
all of one with all of the other. Only the same variant and language is compared, as within a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from wdct_dist.items.types import SIDES
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.factors import factors
from wdct_dist.metrics.figures import empty_summary, summary_rows
from wdct_dist.metrics.item_values import ASKING, METRICS
from wdct_dist.metrics.paired import differences
from wdct_dist.metrics.panel import NOT_ASKED, Asking, Panel, build_panel

WORDS = ["domain", "word_question", "word_options", "deed_question", "deed_options"]
"""What two items share that are the same item; of the translations and paraphrases, those that more than one run asks in (`_asked`)."""


ANSWERED = [f"{side}_{column}" for side in SIDES for column in ("probs", "option", "tie")]
USED = [*ASKING, "item_id", "num_options", *ANSWERED, "match", "pcs", "pcs_debiased"]
"""Columns of scores/items.arrow that a panel is built from; others may have come later than a run."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """One run."""

    name: str
    """Unique among the runs."""
    scores: pl.LazyFrame
    """Columns of `schema.SCORES_ITEMS`."""
    items: pl.LazyFrame
    """Columns of `schema.ITEMS`."""

    def named(self, checkpoint_id: str) -> str:
        return f"{self.name}: {checkpoint_id}"


@dataclass(frozen=True, slots=True)
class AcrossRuns:
    """What runs say beside each other."""

    num_items: int
    """Shared by all of them."""
    num_left_out: dict[str, int]
    """Items of each run that are not in all others, or not in the same words."""
    summary: pl.DataFrame
    """Columns of the summary: `METRICS` of every way of asking, on the shared items."""
    differences: pl.DataFrame
    """Columns of SCORES_DIFFERENCES, between runs only."""


def across_runs(runs: Sequence[RunTables], bootstrap: Bootstrap) -> AcrossRuns:
    """Compares two or more runs. With no shared items the tables are empty."""
    items = _shared(runs)
    counts = {run.name: run.items.select(pl.len()).collect().item() - items.height for run in runs}
    scores = pl.concat(
        run.scores.select(USED)
        .join(items.lazy().select("item_id"), on="item_id", how="semi", maintain_order="left")
        .with_columns(checkpoint_id=pl.format("{}: {}", pl.lit(run.name), "checkpoint_id"))
        for run in runs
    )
    panel = build_panel(scores, items.lazy())
    between = _Between(runs)
    return AcrossRuns(items.height, counts, _summary(panel, bootstrap), differences(panel, bootstrap, compared=between.compared))


def _shared(runs: Sequence[RunTables]) -> pl.DataFrame:
    """`item_id` and `domain`, in the order of the first run."""
    more = [pl.col("record").str.json_path_match(path).alias(path) for path in _asked(runs)]
    first, *others = (run.items.select("item_id", *WORDS, *more) for run in runs)
    same = first.collect_schema().names()
    for other in others:
        first = first.join(other, on=same, how="semi", nulls_equal=True, maintain_order="left")
    return first.select("item_id", "domain").collect()


def _asked(runs: Sequence[RunTables]) -> list[str]:
    """What more than one of the runs asks in beside the items' own texts: where an item's record has it, as JSON paths."""
    counts: Counter[str] = Counter()
    for run in runs:
        ways = run.scores.select("variant", "language").unique().collect(engine="streaming")
        paths = {f"$.translations['{language}']" for language in ways["language"] if language != "en"}
        if any(factors(variant).get("paraphrase", "0") != "0" for variant in ways["variant"]):
            paths.add("$.paraphrases")
        counts.update(paths)
    return sorted(path for path, count in counts.items() if count > 1)


class _Between:
    """Which checkpoints of two runs are compared."""

    def __init__(self, runs: Sequence[RunTables]) -> None:
        self._home: dict[str, tuple[str, str]] = {}
        """Run and own name of each checkpoint, by its name here."""
        self._names: dict[str, set[str]] = {}
        for run in runs:
            own = run.scores.select(pl.col("checkpoint_id").unique()).collect(engine="streaming").to_series().to_list()
            self._names[run.name] = set(own)
            self._home |= {run.named(name): (run.name, name) for name in own}

    def compared(self, left: Asking, right: Asking) -> bool:
        (one, name), (other, other_name) = self._home[left.checkpoint_id], self._home[right.checkpoint_id]
        return one != other and (name == other_name or not self._names[one] & self._names[other])


def _summary(panel: Panel, bootstrap: Bootstrap) -> pl.DataFrame:
    parts = [empty_summary()]
    for row, asking in enumerate(panel.askings):
        asked = np.flatnonzero(panel.decisions[row] != NOT_ASKED)
        values = panel.values[row][:, asked]
        known = ~np.isnan(values)
        parts.append(summary_rows(asking, METRICS, np.where(known, values, 0.0), known.astype(float), panel.domains[asked], bootstrap))
    return pl.concat(parts)
