"""Agreement of a side with itself across languages, worked by hand on ten rows."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.languages import language_rows
from wdct_dist.tables import schema

ITEMS = pl.DataFrame({"item_id": ["i0", "i1", "i2", "i3", "i4"], "domain": ["Opinion"] * 3 + ["EthV"] * 2}).lazy()


def row(item: int, language: str, word: list[float] | None, deed: list[float] | None, **where: Any) -> dict[str, Any]:
    return {
        "checkpoint_id": "a",
        "variant": "direct",
        "language": language,
        "trial": 0,
        "item_id": f"i{item}",
        "num_options": 2,
        "word_probs": word,
        "deed_probs": deed,
    } | where


def rows_of(rows: list[dict[str, Any]], bootstrap: Bootstrap | None = None) -> pl.DataFrame:
    return language_rows(pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy(), ITEMS, bootstrap or Bootstrap(100))


FIRST, SECOND, TIE = [0.8, 0.2], [0.1, 0.9], [0.5, 0.5]
THREE = [0.1, 0.2, 0.7]
TEN = [
    row(0, "en", FIRST, FIRST),
    row(0, "zh", FIRST, SECOND),
    row(1, "en", FIRST, FIRST),
    row(1, "zh", SECOND, FIRST),
    row(2, "en", TIE, TIE),
    row(2, "zh", FIRST, TIE),
    row(3, "en", THREE, THREE, num_options=3),
    row(3, "zh", THREE, None, num_options=3),
    row(4, "en", FIRST, FIRST),
    row(4, "fr", FIRST, FIRST),
]


def figures(table: pl.DataFrame, domain: str) -> dict[str, tuple[Any, int]]:
    rows = table.filter(domain=domain).select("metric", "value", "n").iter_rows()
    return {metric: (value, n) for metric, value, n in rows}


def test_ten_rows_worked_by_hand() -> None:
    table = rows_of(TEN)
    everything = figures(table, "all")
    # words of items 0 to 3: the same, another, half of a tie, the same third option
    assert everything["agreement_word_en_zh"] == (pytest.approx(2.5 / 4), 4)
    # deeds: another, the same, a tie with a tie, and none in Chinese
    assert everything["agreement_deed_en_zh"] == (pytest.approx(1.5 / 3), 3)
    assert everything["agreement_word_en_fr"] == (1.0, 1)
    assert figures(table, "EthV")["agreement_word_en_zh"] == (1.0, 1)
    assert figures(table, "EthV")["agreement_deed_en_zh"] == (None, 0)


def test_a_row_stands_under_the_first_language_of_its_pair() -> None:
    table = rows_of(TEN).filter(domain="all")
    assert table.columns == schema.SCORES_SUMMARY.names
    languages = {
        metric.removeprefix("agreement_word_"): language
        for metric, language in table.select("metric", "language").iter_rows()
        if "word" in metric
    }
    assert languages == {"en_fr": "en", "en_zh": "en", "fr_zh": "fr"}


def test_languages_that_share_no_item_have_no_value() -> None:
    assert figures(rows_of(TEN), "all")["agreement_word_fr_zh"] == (None, 0)


def test_every_pair_of_trials_is_compared() -> None:
    rows = [row(0, "en", probs, FIRST, trial=trial) for trial, probs in enumerate([FIRST, FIRST, FIRST, SECOND])]
    rows += [row(0, "zh", probs, FIRST, trial=trial) for trial, probs in enumerate([FIRST, SECOND, SECOND, SECOND])]
    # three quarters of option 0 against one quarter: 3/4 * 1/4 + 1/4 * 3/4
    assert figures(rows_of(rows), "all")["agreement_word_en_zh"] == (pytest.approx(6 / 16), 1)


def test_the_interval_holds_the_value_and_needs_two_items() -> None:
    table = rows_of(TEN, Bootstrap(400))
    found = table.filter(domain="all", metric="agreement_word_en_zh").to_dicts()[0]
    assert 0.0 <= found["ci_low"] < found["value"] < found["ci_high"] <= 1.0
    assert table.filter(domain="all", metric="agreement_word_en_fr")["ci_low"].to_list() == [None]


def test_where_the_text_is_the_answer_its_options_are_compared() -> None:
    asked = {"variant": "paper", "word_tie": False, "deed_tie": False}
    one = row(0, "en", FIRST, None, word_option=1, deed_option=0, **asked)
    other = row(0, "zh", SECOND, None, word_option=1, deed_option=1, **asked)
    found = figures(rows_of([one, other]), "all")
    assert found == {"agreement_word_en_zh": (1.0, 1), "agreement_deed_en_zh": (0.0, 1)}


def test_one_language_agrees_with_nothing() -> None:
    assert rows_of([entry for entry in TEN if entry["language"] == "en"]).height == 0


def test_a_family_has_the_mean_over_its_members() -> None:
    one, other = {"variant": "augmented/wording=0"}, {"variant": "augmented/wording=1"}
    rows = [row(0, "en", FIRST, FIRST, **one), row(0, "zh", FIRST, SECOND, **one), row(3, "en", FIRST, FIRST, **one)]
    rows += [row(0, "en", FIRST, FIRST, **other), row(0, "zh", SECOND, SECOND, **other), row(3, "zh", FIRST, FIRST, **one)]
    table = rows_of(rows).filter(variant="augmented")
    # item 0: words agree in one of two members, deeds in none; item 3 was asked in one member only, and agrees
    assert figures(table, "all") == {"agreement_word_en_zh": (0.75, 2), "agreement_deed_en_zh": (0.5, 2)}
    assert figures(table, "EthV")["agreement_word_en_zh"] == (1.0, 1)
    assert set(table["language"]) == {"en"}
