"""The A/A noise floor, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.noise import noise_floors, noise_rows
from wdct_dist.metrics.panel import Asking, Panel, build_panel
from wdct_dist.tables import schema

ITEMS = pl.DataFrame({"item_id": [f"i{number:02}" for number in range(10)], "domain": ["Opinion"] * 5 + ["EthV"] * 5}).lazy()


def evaluation(matches: list[float | None], pcs: list[float | None] | None = None, **where: Any) -> Panel:
    rows = [
        {
            "checkpoint_id": "a",
            "variant": "direct",
            "language": "en",
            "trial": 0,
            "item_id": f"i{item:02}",
            "num_options": 2,
            "match": match,
            "pcs": (pcs or matches)[item],
        }
        | where
        for item, match in enumerate(matches)
    ]
    return build_panel(pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy(), ITEMS)


def one(table: pl.DataFrame, **where: Any) -> dict[str, Any]:
    found = table.filter(**where)
    assert found.height == 1, found
    return found.to_dicts()[0]


FIRST = evaluation([1, 1, 1, 0, 0, 1, 1, 0, 0, 0], [0.5] * 10)


def test_changes_that_cancel_are_noise_all_the_same() -> None:
    # item 0 goes down, item 3 up: CS stays, but two items of ten moved
    again = evaluation([0, 1, 1, 1, 0, 1, 1, 0, 0, 0], [0.5] * 10)
    found = one(noise_floors(FIRST, [again], 0.95), domain="all", metric="cs")
    assert (found["largest"], found["changed"], found["n"], found["num_repeats"]) == (0.0, 0.2, 10, 1)
    assert found["typical"] == pytest.approx(2**0.5 / 10)
    assert found["floor"] == pytest.approx(1.959964 * 2**0.5 / 10, rel=1e-6)


def test_a_change_in_one_direction_is_seen_as_it_is() -> None:
    again = evaluation([1, 1, 1, 0, 0, 1, 1, 0, 0, 0], [0.6] * 10)
    found = one(noise_floors(FIRST, [again], 0.95), domain="all", metric="pcs")
    # every item up by 0.1: far more than chance would move the mean, sqrt(10 * 0.01) / 10
    assert found["largest"] == pytest.approx(0.1)
    assert found["typical"] == pytest.approx(0.1 / 10**0.5)
    assert found["floor"] == pytest.approx(0.1)


def test_three_evaluations_are_three_pairs() -> None:
    up = evaluation([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])
    down = evaluation([0, 0, 1, 0, 0, 1, 1, 0, 0, 0])
    found = one(noise_floors(FIRST, [up, down], 0.95), domain="all", metric="cs")
    # changes: +1 of ten, -2 of ten, and 3 of ten between the repeats
    assert found["largest"] == pytest.approx(0.3)
    assert found["typical"] == pytest.approx(((1 + 2 + 3) / 3) ** 0.5 / 10)
    assert (found["changed"], found["num_repeats"]) == (pytest.approx(0.3), 2)


def test_a_domain_has_a_floor_of_its_own() -> None:
    floors = noise_floors(FIRST, [evaluation([0, 1, 1, 0, 0, 1, 1, 0, 0, 0])], 0.95).filter(metric="cs")
    assert one(floors, domain="Opinion")["largest"] == pytest.approx(0.2)
    assert (one(floors, domain="EthV")["floor"], one(floors, domain="EthV")["changed"]) == (0.0, 0.0)


def test_items_without_an_answer_in_any_evaluation_do_not_count() -> None:
    again = evaluation([None, 0, 1, 0, 0, 1, 1, 0, 0, 0])
    found = one(noise_floors(FIRST, [again], 0.95), domain="all", metric="cs")
    assert found["n"] == 9
    assert found["largest"] == pytest.approx(1 / 9)
    nothing = one(noise_floors(FIRST, [evaluation([None] * 10)], 0.95), domain="all", metric="cs")
    assert (nothing["n"], nothing["floor"]) == (0, None)


def test_a_checkpoint_without_a_repeat_has_no_floor() -> None:
    assert noise_floors(FIRST, [evaluation([1] * 10, checkpoint_id="b")], 0.95).height == 0
    assert noise_floors(FIRST, [], 0.95).columns == schema.SCORES_NOISE.names


def test_the_floors_are_rows_of_the_summary() -> None:
    again = evaluation([0, 0, 1, 0, 0, 1, 1, 0, 0, 0], [0.45] * 10)
    rows = noise_rows(noise_floors(FIRST, [again], 0.5)).filter(domain="all")
    assert rows.columns == schema.SCORES_SUMMARY.names
    values = dict(rows.select("metric", "value").iter_rows())
    assert values["noise"] == pytest.approx(0.2)
    assert values["noise_pcs"] == pytest.approx(0.05)
    assert rows["ci_low"].null_count() == rows.height


def test_changes_of_the_same_kind_are_under_the_floor_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    base = (generator.random(400) < 0.6).astype(float)

    def again() -> Panel:
        # an engine that turns 5 % of the answers by chance
        matches = np.where(generator.random(400) < 0.05, 1 - base, base)
        ids, domains = pl.Series([f"i{number:03}" for number in range(400)]), np.array(["Opinion"] * 400, dtype=object)
        asking = Asking("a", "direct", "en")
        return Panel(ids, domains, (asking,), np.tile(matches, (1, 4, 1)), matches.astype(np.int8)[None])

    under = 0
    for _ in range(200):
        floor = one(noise_floors(again(), [again()], 0.95), domain="all", metric="cs")["floor"]
        under += int(abs(again().values[0, 0].mean() - again().values[0, 0].mean()) <= floor)
    # with a fixed floor binomial with 0.95: mean 190, standard deviation 3.1; the floor is itself estimated
    assert under >= 180
