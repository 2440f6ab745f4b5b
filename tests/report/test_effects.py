"""Marginal effects in a terminal."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from rich.cells import cell_len

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.report.effects import MOST_TABLES
from wdct_dist.tables import schema


@pytest.fixture
def effects() -> Any:
    """Two levels of a factor, whose effects are +0.1 and -0.1 on CS and none on PCS."""

    def make(*checkpoints: str, items: tuple[int, int] = (30, 30)) -> pl.DataFrame:
        rows = [
            (name, "en", "augmented", "all", "labels", level, metric, 0.5 + effect, effect, effect - 0.05, effect + 0.05, 0.95, n)
            for name in checkpoints
            for level, sign, n in (("letters", 1, items[0]), ("digits", -1, items[1]))
            for metric, effect in (("cs", 0.1 * sign), ("pcs", 0.0))
        ]
        return pl.DataFrame(rows, schema=polars_schema(schema.SCORES_EFFECTS), orient="row")

    return make


def test_a_level_has_its_figure_and_its_effect_marked_where_the_interval_leaves_0_out(
    summary: Any, printed: Any, flat: Any, effects: Any
) -> None:
    text = printed(summary(("base", {})), effects=effects("base"))
    assert "What each factor does: base, en, augmented (30 items)" in text
    assert "labels=letters 0.600 +0.100*[+0.05, +0.15] 0.500 +0.000 [-0.05, +0.05]" in flat(text)
    assert "labels=digits 0.400 -0.100*[-0.15, -0.05] 0.500 +0.000 [-0.05, +0.05]" in flat(text)
    assert max(cell_len(line) for line in text.splitlines()) <= 80


def test_levels_on_different_items_say_how_many(summary: Any, printed: Any, flat: Any, effects: Any) -> None:
    text = flat(printed(summary(("base", {})), effects=effects("base", items=(30, 12))))
    assert "0.400 -0.100*[-0.15, -0.05] 0.500 +0.000 [-0.05, +0.05] 12 a level's" in text


def test_of_many_checkpoints_the_first_are_shown_and_the_others_counted(summary: Any, printed: Any, flat: Any, effects: Any) -> None:
    text = printed(summary(("base", {})), effects=effects(*(f"c{number}" for number in range(MOST_TABLES + 3))))
    assert text.count("What each factor does") == MOST_TABLES
    assert "3 more are in scores/effects.arrow" in flat(text)


def test_a_run_without_families_has_no_such_table(summary: Any, printed: Any, effects: Any) -> None:
    assert "What each factor does" not in printed(summary(("base", {})), effects=effects())
