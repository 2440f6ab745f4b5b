"""A sample of the items as dots: how probable an item's first option is as a word and as a deed.

Of two options the first says all. Drawn with a seed: of each checkpoint, way of asking and domain the same number, as far as there are
any, so a domain's dots lie as its items do, and a small domain is as dense as a large one. Memory holds dots, not rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from wdct_dist.items.types import SIDES
from wdct_dist.metrics.factors import family
from wdct_dist.metrics.run_scores import ITEMS
from wdct_dist.tables.arrow_file import batches
from wdct_dist.tables.storage import Store

MOST_DOTS = 24_000
"""In the page; those of one checkpoint and way of asking are drawn at a time."""
MOST_OF_A_DOMAIN = 150
"""Of one checkpoint and way of asking: more would hide each other."""
DOTS_SEED = 0

PLACE = ("checkpoint_id", "variant", "language", "domain")


@dataclass(frozen=True, slots=True)
class Dots:
    """Dots that are shown, and how many there were to choose from."""

    num_rows: int
    """Rows of scores/items.arrow with probabilities on both sides."""
    num_drawn: int
    groups: list[dict[str, Any]]
    """Each `checkpoint_id`, `variant` (a member's is its family), `language` and `domain` with the lists `item_id`, `word`, `deed`."""


def draw_dots(store: Store, most: int = MOST_DOTS, most_of_a_domain: int = MOST_OF_A_DOMAIN, seed: int = DOTS_SEED) -> Dots:
    """At most `most` items of scores/items.arrow with the probability of their first option on both sides, to three places."""
    generator = np.random.default_rng(seed)
    kept: list[pl.DataFrame] = []
    num_rows = 0
    for batch in map(pl.DataFrame, batches(store, ITEMS)):
        drawn = batch.select(
            *PLACE,
            "item_id",
            *(pl.col(f"{side}_probs").list.first().round(3).alias(side) for side in SIDES),
            draw=pl.Series(generator.random(batch.height)),
        ).drop_nulls()
        num_rows += drawn.height
        named = drawn.with_columns(pl.col("variant").replace({name: family(name) or name for name in drawn["variant"].unique()}))
        kept.append(_fewest(named, most_of_a_domain))
    if not num_rows:
        return Dots(0, 0, [])
    dots = _fewest(pl.concat(kept), most_of_a_domain)
    num_groups = dots.select(PLACE).n_unique()
    shown = _fewest(dots, max(1, most // num_groups)).sort(*PLACE, "draw")
    groups = shown.group_by(PLACE, maintain_order=True).agg("item_id", "word", "deed")
    return Dots(num_rows, shown.height, groups.to_dicts())


def _fewest(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    return frame.sort("draw").group_by(PLACE, maintain_order=True).head(most)
