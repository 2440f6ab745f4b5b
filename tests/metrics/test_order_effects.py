"""The option order as a factor, worked by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.order_effects import order_effects
from wdct_dist.metrics.order_pairs import over_pairs
from wdct_dist.metrics.sides import widen
from wdct_dist.report.effects import effect_tables
from wdct_dist.tables import schema

KEYS = ["item_id", "trial"]
COLUMNS = ["match_same_order", "match_different_order", "pcs_same_order", "pcs_different_order"]
ITEMS = pl.LazyFrame({"item_id": ["a", "b", "c"], "domain": ["Opinion", "Opinion", "EthV"]})


def pairs(tables: Any, num_options: int = 2) -> list[tuple[Any, ...]]:
    found = over_pairs(widen(derive(*tables.lazy()), num_options), num_options, KEYS)
    return found.sort("item_id").select(COLUMNS).collect(engine="streaming").rows()


def scored(variant: str, values: list[tuple[Any, ...]], trial: int = 0) -> list[dict[str, Any]]:
    """Rows of scores/items.arrow of the items a, b, c …"""
    return [
        {"checkpoint_id": "m", "variant": variant, "language": "en", "trial": trial, "item_id": "abc"[place]}
        | dict(zip(COLUMNS, value, strict=True))
        for place, value in enumerate(values)
    ]


def effects(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return order_effects(pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy(), ITEMS, Bootstrap(200))


def test_a_checkpoint_that_always_takes_the_first_label_agrees_in_the_same_order_only(ask: Any, tables: Any) -> None:
    asked = [
        ask("a", side, order, (1.0, 0.0) if order == (0, 1) else (0.0, 1.0)) for side in ("word", "deed") for order in ((0, 1), (1, 0))
    ]
    assert pairs(tables(asked)) == [(1.0, 0.0, 1.0, 0.0)]


def test_three_rotations_have_three_pairs_of_one_order_and_six_of_two(ask: Any, tables: Any) -> None:
    rotations = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    first = (1.0, 0.0, 0.0)
    # words always choose option 0; deeds the first label: option 0, 1, 2
    asked = [ask("a", "word", order, first) for order in rotations]
    asked += [ask("a", "deed", order, tuple(float(option == order[0]) for option in range(3))) for order in rotations]
    same, different, *_ = pairs(tables(asked), 3)[0]
    # deeds match in their first order, with whatever order of the words: 1 of 3 pairs of one order, 2 of 6 others
    assert (same, different) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_orders_that_share_their_first_option_are_different_orders(ask: Any, tables: Any) -> None:
    chosen = (0.0, 1.0, 0.0)
    asked = [ask("a", "word", (0, 1, 2), chosen), ask("a", "deed", (0, 2, 1), chosen)]
    assert pairs(tables(asked), 3) == [(None, 1.0, None, 1.0)]


def test_a_level_s_effect_is_its_distance_from_the_mean_of_both() -> None:
    table = effects(scored("direct", [(1.0, 0.0, 1.0, 0.5), (1.0, 1.0, 0.9, 0.9), (0.5, 0.5, 0.8, 0.8)]))
    figures = {
        (row["domain"], row["factor"], row["factor_level"], row["metric"]): (row["value"], row["effect"], row["n"])
        for row in table.iter_rows(named=True)
    }
    assert figures["all", "option_order", "same", "cs"] == (pytest.approx(2.5 / 3), pytest.approx(0.5 / 3), 3)
    assert figures["all", "option_order", "different", "cs"] == (pytest.approx(1.5 / 3), pytest.approx(-0.5 / 3), 3)
    assert figures["all", "option_order", "same", "pcs"] == (pytest.approx(0.9), pytest.approx(0.25 / 3), 3)
    assert figures["EthV", "option_order", "same", "cs"] == (0.5, 0.0, 1)
    assert set(table["family"]) == {"direct"}
    assert (table.filter(domain="all")["ci_low"] <= table.filter(domain="all")["effect"]).all()


def test_an_item_without_pairs_of_both_kinds_does_not_count() -> None:
    table = effects(scored("direct", [(1.0, 0.0, None, None), (0.0, None, None, None), (None, None, None, None)]))
    assert table.filter(domain="all", metric="cs")["n"].to_list() == [1, 1]
    assert table.filter(domain="all", metric="cs")["value"].to_list() == [1.0, 0.0]
    assert table.filter(metric="pcs")["value"].drop_nulls().is_empty()
    assert effects(scored("direct", [(1.0, None, 1.0, None)])).is_empty()


def test_members_of_a_family_and_trials_are_averaged() -> None:
    rows = scored("augmented/wording=0", [(1.0, 0.0, 1.0, 0.0)]) + scored("augmented/wording=1", [(0.0, 0.0, 0.5, 0.5)])
    rows += scored("augmented/wording=1", [(1.0, 1.0, 0.5, 0.5)], trial=1)
    table = effects(rows).filter(domain="all", metric="cs")
    assert table["family"].to_list() == ["augmented", "augmented"]
    assert table["value"].to_list() == [pytest.approx(2 / 3), pytest.approx(1 / 3)]


def test_the_report_shows_it_beside_other_factors_only() -> None:
    table = effects(scored("direct", [(1.0, 0.0, 1.0, 0.5)] * 3))
    assert effect_tables(table) == []
    family = table.with_columns(family=pl.lit("augmented"))
    [shown] = effect_tables(pl.concat([family.with_columns(factor=pl.lit("labels")), family]))
    assert [cells[0] for cells in shown.rows] == ["labels=same", "labels=different", "option_order=same", "option_order=different"]
    assert any("option_order" in note for note in shown.notes)
