"""Words against deeds, item by item."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.report.html.dots import Dots, draw_dots
from wdct_dist.tables.storage import Store

LISTS = ["item_id", "word", "deed"]


@pytest.fixture(scope="module")
def scores(run: Path) -> pl.DataFrame:
    return pl.read_ipc(run / "scores" / "items.arrow")


def drawn(run: Path, **more: Any) -> Dots:
    return draw_dots(Store(str(run)), **more)


def test_a_dot_is_the_probability_of_the_first_option_on_both_sides(run: Path, scores: pl.DataFrame) -> None:
    expected = Counter(
        (row["checkpoint_id"], row["variant"].split("/")[0], row["language"], row["domain"], row["item_id"], *pair)
        for row in scores.iter_rows(named=True)
        if None not in (pair := tuple(row[f"{side}_probs"] and round(row[f"{side}_probs"][0], 3) for side in ("word", "deed")))
    )
    found = drawn(run, most=10**9, most_of_a_domain=10**9)
    place = ("checkpoint_id", "variant", "language", "domain")
    assert (
        Counter(
            (*(group[name] for name in place), *dot) for group in found.groups for dot in zip(*(group[name] for name in LISTS), strict=True)
        )
        == expected
    )
    assert found.num_rows == found.num_drawn == expected.total() > 500


def test_of_many_the_same_number_of_each_domain_is_drawn_with_a_seed(run: Path) -> None:
    found = drawn(run, most_of_a_domain=2)
    assert {len(group["word"]) for group in found.groups} == {2}
    assert found.num_drawn == 2 * len(found.groups) < found.num_rows
    assert drawn(run, most_of_a_domain=2) == found
    assert drawn(run, most_of_a_domain=2, seed=1) != found


def test_a_page_has_no_more_dots_than_it_can_hold(run: Path) -> None:
    most = 3 * len(drawn(run).groups) + 1
    found = drawn(run, most=most)
    assert max(len(group["word"]) for group in found.groups) == 3
    assert found.num_drawn <= most


def test_the_page_says_how_many_of_how_many_it_shows(page: Any, run: Path) -> None:
    found = drawn(run)
    assert found.num_drawn == found.num_rows
    assert f"All {found.num_rows:,} rows of scores/items.arrow that have" in page.text
    values = next(rows for rows in page.json("words-deeds-spec")["datasets"].values() if "item_id" in rows[0])
    assert sum(len(group["item_id"]) for group in values) == found.num_drawn
