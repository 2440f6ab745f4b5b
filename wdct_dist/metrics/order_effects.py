"""The option order as a factor of CS and PCS: what it does that both questions show their options in the same order, or not.

It is a factor of every variant, also of those that stand alone; a family's values are means over its members. See `order_pairs`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from wdct_dist.metrics.bootstrap import Bootstrap, Floats
from wdct_dist.metrics.effects import effect_rows, empty_effects
from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.factors import OPTION_ORDER, family
from wdct_dist.metrics.order_pairs import LEVELS, MEASURES
from wdct_dist.metrics.panel import Asking, domain_sets


def order_effects(scores: pl.LazyFrame, items: pl.LazyFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """The levels `same` and `different` of the factor `option_order`: columns of SCORES_EFFECTS, beside those of `effects`.

    `scores` and `items` as for `panel.build_panel`. An item counts where it has both kinds of pairs (in the same member and trial),
    so that both levels are judged on the same answers; a variant without such items, as with one order a side, has no rows.
    """
    place_of = items.select("item_id", "domain").with_row_index("place")
    halves = {column: [f"{column}_{level}_order" for level in LEVELS] for column in MEASURES.values()}
    parts = [empty_effects()]
    for checkpoint_id in scores.select(pl.col("checkpoint_id").unique(maintain_order=True)).collect(engine="streaming").to_series():
        own = scores.filter(pl.col("checkpoint_id") == checkpoint_id)
        variants = own.select(pl.col("variant").unique()).collect(engine="streaming").to_series()
        families = {variant: family(variant) or variant for variant in variants}
        means = (
            own.select(
                "language",
                "item_id",
                pl.col("variant").replace_strict(families, return_dtype=pl.String),
                *(pl.when(pl.all_horizontal(pl.col(names).is_not_null())).then(pl.col(names)) for names in halves.values()),
            )
            .group_by("language", "variant", "item_id")
            .agg(exact_mean(pl.col(name)) for names in halves.values() for name in names)
            .join(place_of, on="item_id")
            .sort("language", "variant", "place")
            .collect(engine="streaming")
        )
        for (language, variant), group in means.group_by("language", "variant", maintain_order=True):
            asking = Asking(str(checkpoint_id), str(variant), str(language))
            parts += _rows(asking, group, bootstrap)
    return pl.concat(parts)


def _rows(asking: Asking, means: pl.DataFrame, bootstrap: Bootstrap) -> list[pl.DataFrame]:
    levels = [(OPTION_ORDER, level) for level in LEVELS]
    values: dict[str, Floats] = {
        metric: np.stack([means[f"{column}_{level}_order"].cast(pl.Float64).to_numpy() for level in LEVELS])
        for metric, column in MEASURES.items()
    }
    if np.isnan(values["cs"]).all():
        return []
    return [
        effect_rows(asking, domain, levels, metric, value[:, places], (value - value.mean(axis=0))[:, places], bootstrap)
        for metric, value in values.items()
        for domain, places in domain_sets(means["domain"].to_numpy())
    ]
