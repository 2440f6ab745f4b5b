"""Families of variants as one row."""

from __future__ import annotations

from typing import Any

import polars as pl

from wdct_dist.report.rows import families_as_one, rows_of


def family_of(summary: Any, *members: dict[str, float | None]) -> pl.DataFrame:
    """The variant direct, a family of these members, and its own row as `effects.family_rows` adds it at the end."""
    own = summary(("base", {"cs": 0.66, "pcs": 0.77, "cs_averaged": 0.81, "pcs_averaged": 0.91}), variant="augmented")
    parts = [summary(("base", {}))]
    parts += [summary(("base", one), variant=f"augmented/wording={number}") for number, one in enumerate(members)]
    parts += [summary(("other", {})), own.filter(pl.col("metric").is_in(["cs", "pcs", "cs_averaged", "pcs_averaged"]))]
    return pl.concat(parts)


def test_members_are_one_row_beside_the_variants_of_their_checkpoint(summary: Any) -> None:
    rows = families_as_one(rows_of(family_of(summary, {}, {})))
    assert [(row.checkpoint_id, row.variant) for row in rows] == [("base", "direct"), ("base", "augmented"), ("other", "direct")]


def test_a_checkpoints_rows_are_in_the_order_of_the_configuration(summary: Any) -> None:
    rows = families_as_one(rows_of(family_of(summary, {}, {})), ["augmented", "direct"])
    assert [(row.checkpoint_id, row.variant) for row in rows] == [("base", "augmented"), ("base", "direct"), ("other", "direct")]


def test_a_family_has_the_averaged_figures_and_the_quality_of_its_worst_member(summary: Any) -> None:
    rows = rows_of(family_of(summary, {"label_mass": 0.9, "tie_rate": 0.0}, {"label_mass": 0.3, "tie_rate": 0.2}))
    _, family, _ = families_as_one(rows)
    shown = {name: family.value(name) for name in ("cs", "pcs", "cs_debiased", "pcs_debiased", "label_mass", "tie_rate")}
    assert shown == {"cs": 0.66, "pcs": 0.77, "cs_debiased": 0.81, "pcs_debiased": 0.91, "label_mass": 0.3, "tie_rate": 0.2}


def test_a_figure_that_members_do_not_share_is_no_figure_of_the_family(summary: Any) -> None:
    same = families_as_one(rows_of(family_of(summary, {}, {})))[1]
    unlike = families_as_one(rows_of(family_of(summary, {"cs_chance": 0.5}, {"cs_chance": 0.4})))[1]
    assert (same.value("cs_chance"), unlike.value("cs_chance")) == (0.5, None)
