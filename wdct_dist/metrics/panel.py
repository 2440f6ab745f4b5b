"""The panel: what every item adds under every way of asking, item beside item, so that comparisons are paired by construction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wdct_dist.metrics.bootstrap import Floats
from wdct_dist.metrics.factors import factors
from wdct_dist.metrics.item_values import ASKING, METRICS, family_values, item_values
from wdct_dist.metrics.summary import ALL

Places = NDArray[np.intp]

MATCHED, DIFFERENT, UNDECIDED, NOT_ASKED = 1, 0, -1, -2
"""Decisions. `UNDECIDED`: a side has no answer, or a tie leaves the match open. `NOT_ASKED`: the item has no row there."""


@dataclass(frozen=True, slots=True, order=True)
class Asking:
    """One checkpoint, asked in one variant and one language."""

    checkpoint_id: str
    variant: str
    language: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Values of all items under all ways of asking. Memory: 33 bytes an item and way of asking."""

    item_ids: pl.Series
    domains: NDArray[Any]
    """Of each item."""
    askings: tuple[Asking, ...]
    """Members of families, then each family as one variant (see `item_values.family_values`), beside those that stand alone."""
    values: Floats
    """[askings, `METRICS`, items]; NaN where an item has none."""
    decisions: NDArray[np.int8]
    """[askings, items]."""

    def item_sets(self, rows: Sequence[int]) -> Iterator[tuple[str, Places]]:
        """The items asked in any of `rows` (of `askings`): all of them, then each domain's, with the name for the bootstrap.

        In the order of items.arrow, so that the draws are those of the summary.
        """
        asked = np.flatnonzero((self.decisions[list(rows)] != NOT_ASKED).any(axis=0))
        for name, places in domain_sets(self.domains[asked]):
            yield name, asked[places]


def build_panel(scores: pl.LazyFrame, items: pl.LazyFrame) -> Panel:
    """`scores` with the columns of `schema.SCORES_ITEMS`; `items` (`item_id`, `domain`) in the order of items.arrow.

    Checkpoints come in the order of `scores`. One checkpoint is worked on at a time.
    """
    order = items.select("item_id", "domain").with_row_index("place").collect()
    places = order.lazy().select("item_id", "place")
    found = scores.select(ASKING).unique(maintain_order=True).collect(engine="streaming")
    max_options = scores.select(pl.col("num_options").max()).collect(engine="streaming").item() or 2
    askings: list[Asking] = []
    values: list[Floats] = []
    decisions: list[NDArray[np.int8]] = []
    for checkpoint_id in found["checkpoint_id"].unique(maintain_order=True):
        variants = found.filter(pl.col("checkpoint_id") == checkpoint_id)["variant"].unique(maintain_order=True).to_list()
        single = item_values(scores.filter(pl.col("checkpoint_id") == checkpoint_id), max_options)
        parts = [single]
        if any(factors(variant) for variant in variants):
            single = single.collect(engine="streaming").lazy()
            parts = [single, family_values(single, variants, max_options)]
        for part in parts:
            table = part.join(places, on="item_id").select("variant", "language", "place", "matched", *METRICS)
            groups = table.collect(engine="streaming").partition_by("variant", "language", as_dict=True, include_key=False)
            for (variant, language), group in sorted(groups.items()):
                askings.append(Asking(checkpoint_id, str(variant), str(language)))
                at = group["place"].to_numpy()
                measured = np.full((len(METRICS), order.height), np.nan)
                for row, metric in zip(measured, METRICS, strict=True):
                    row[at] = group[metric].cast(pl.Float64).to_numpy()
                decided = np.full(order.height, NOT_ASKED, dtype=np.int8)
                decided[at] = group["matched"].cast(pl.Int8).fill_null(UNDECIDED).to_numpy()
                values.append(measured)
                decisions.append(decided)
    return Panel(
        order["item_id"],
        order["domain"].to_numpy(),
        tuple(askings),
        np.stack(values) if values else np.empty((0, len(METRICS), order.height)),
        np.stack(decisions) if decisions else np.empty((0, order.height), dtype=np.int8),
    )


def domain_sets(domains: NDArray[Any]) -> Iterator[tuple[str, Places]]:
    """`all` with the places of all items, then each domain with its own, in the order in which domains first occur."""
    yield ALL, np.arange(len(domains))
    for domain in dict.fromkeys(domains.tolist()):
        yield domain, np.flatnonzero(domains == domain)
