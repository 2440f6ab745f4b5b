"""Paired differences, worked by hand on ten items."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from wdct_dist.metrics import paired
from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap, intervals
from wdct_dist.metrics.noise import SCHEMA as NOISE
from wdct_dist.metrics.paired import differences
from wdct_dist.metrics.panel import Panel, build_panel
from wdct_dist.tables import schema

ITEMS = pl.DataFrame({"item_id": [f"i{number:02}" for number in range(10)], "domain": ["Opinion"] * 6 + ["EthV"] * 4}).lazy()
SURE, TIE, NONE = (0.9, 0.1), (0.5, 0.5), None
AGAINST = (0.2, 0.8)
BOOTSTRAP = Bootstrap(200)


def row(item: int, word: Any, deed: Any, **where: Any) -> dict[str, Any]:
    """A row of scores/items for one order: the match follows from the probabilities."""
    shares = [None if side is None else np.isclose(side, max(side)) / np.isclose(side, max(side)).sum() for side in (word, deed)]
    match = None if shares[0] is None or shares[1] is None else float(shares[0] @ shares[1])
    return {
        "checkpoint_id": "a",
        "variant": "direct",
        "language": "en",
        "trial": 0,
        "item_id": f"i{item:02}",
        "num_options": 2,
        "word_probs": word,
        "deed_probs": deed,
        "match": match,
        "pcs": None if match is None else 0.5 + 0.04 * item,
        "pcs_debiased": None if match is None else 0.5,
    } | where


def panel_of(rows: list[dict[str, Any]]) -> Panel:
    return build_panel(pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy(), ITEMS)


def checkpoint(name: str, answers: list[Any], **where: Any) -> list[dict[str, Any]]:
    """Deeds as given, words always sure of option 0; an answer of None leaves the deed without one."""
    return [row(item, SURE, deed, checkpoint_id=name, **where) for item, deed in enumerate(answers)]


# matches:   a 1 1 1 1 1 1 0 0 0 -      b 1 1 0 0 0 ½ 1 0 0 1
A = [SURE] * 6 + [AGAINST] * 3 + [NONE]
B = [SURE, SURE, AGAINST, AGAINST, AGAINST, TIE, SURE, AGAINST, AGAINST, SURE]


def one(table: pl.DataFrame, **where: Any) -> dict[str, Any]:
    found = table.filter(**where)
    assert found.height == 1, found
    return found.to_dicts()[0]


def test_two_checkpoints_on_ten_items_worked_by_hand() -> None:
    table = differences(panel_of(checkpoint("a", A) + checkpoint("b", B)), BOOTSTRAP)
    found = one(table, domain="all", metric="cs")
    assert (found["kind"], found["left"], found["right"]) == ("checkpoint", "a", "b")
    assert (found["checkpoint_id"], found["variant"], found["language"]) == (None, "direct", "en")
    # the nine items that both answered: 6 against 1 + 1 + ½ + 1
    assert found["difference"] == pytest.approx((6 - 3.5) / 9)
    assert found["n"] == 9
    # items 2, 3 and 4 match under a alone, item 6 under b alone; item 5 is a tie under b, item 9 has no answer under a
    assert (found["n_discordant"], found["n_left_only"], found["n_undecided"]) == (4, 3, 2)
    assert found["p_value"] == pytest.approx(2 * (1 + 4) / 16)
    assert found["ci_low"] < found["difference"] < found["ci_high"]
    assert found["below_noise"] is None


def test_a_domain_is_its_own_items() -> None:
    table = differences(panel_of(checkpoint("a", A) + checkpoint("b", B)), BOOTSTRAP)
    opinion = one(table, domain="Opinion", metric="cs_debiased")
    assert opinion["difference"] == pytest.approx((6 - 2.5) / 6)
    assert (opinion["n"], opinion["n_discordant"], opinion["n_undecided"]) == (6, 3, 1)
    ethical = one(table, domain="EthV", metric="cs_debiased")
    assert ethical["difference"] == pytest.approx((0 - 1) / 3)
    assert (ethical["n"], ethical["n_discordant"], ethical["n_undecided"]) == (3, 1, 1)


def test_pcs_has_an_interval_and_no_test() -> None:
    rows = checkpoint("a", [SURE] * 10) + [answer | {"pcs": answer["pcs"] - 0.1} for answer in checkpoint("b", [SURE] * 10)]
    found = one(differences(panel_of(rows), BOOTSTRAP), domain="all", metric="pcs")
    # the same change on every item has no spread, however the items differ: the sides are drawn together
    assert found["difference"] == pytest.approx(0.1)
    assert found["ci_low"] == pytest.approx(0.1)
    assert found["ci_high"] == pytest.approx(0.1)
    assert (found["p_value"], found["p_holm"], found["n_discordant"]) == (None, None, None)


def test_the_p_value_stands_with_cs_only_where_it_tests_the_same_figure() -> None:
    rotated = [answer | {"match": 0.5} for answer in checkpoint("b", B)]
    table = differences(panel_of(checkpoint("a", A) + rotated), BOOTSTRAP).filter(domain="all")
    assert one(table, metric="cs_debiased")["p_value"] == pytest.approx(0.625)
    assert one(table, metric="cs")["p_value"] is None


def test_holm_counts_each_test_once_and_domains_apart_from_all() -> None:
    rows = checkpoint("a", [SURE] * 10) + checkpoint("b", [AGAINST] * 10) + checkpoint("c", [SURE] * 5 + [AGAINST] * 5)
    table = differences(panel_of(rows), BOOTSTRAP)
    overall = table.filter(domain="all", metric="cs_debiased")
    assert overall.select("left", "right").rows() == [("a", "b"), ("a", "c"), ("b", "c")]
    # discordant 10, 5 and 5, all in one direction; 3 times the first, twice the second, and the third raised to the second
    assert overall["p_value"].to_list() == pytest.approx([2 / 1024, 2 / 32, 2 / 32])
    assert overall["p_holm"].to_list() == pytest.approx([6 / 1024, 4 / 32, 4 / 32])
    assert overall["family_size"].to_list() == [3, 3, 3]
    assert table.filter(pl.col("domain") != "all", pl.col("p_value").is_not_null())["family_size"].unique().to_list() == [6]


def test_kinds_are_families_of_their_own() -> None:
    rows = [entry for name in "ab" for variant in ("direct", "cot") for entry in checkpoint(name, A, variant=variant)]
    table = differences(panel_of(rows), BOOTSTRAP).filter(domain="all", metric="cs_debiased")
    assert table.select("kind", "left", "right", "checkpoint_id", "variant", "family_size").rows() == [
        ("checkpoint", "a", "b", None, "cot", 2),
        ("checkpoint", "a", "b", None, "direct", 2),
        ("variant", "cot", "direct", "a", None, 2),
        ("variant", "cot", "direct", "b", None, 2),
    ]


def test_languages_are_compared_on_the_items_that_have_both() -> None:
    rows = checkpoint("a", [SURE] * 10) + checkpoint("a", [AGAINST] * 4, language="zh")
    table = differences(panel_of(rows), BOOTSTRAP)
    found = one(table, domain="all", metric="cs")
    assert (found["kind"], found["left"], found["right"], found["checkpoint_id"]) == ("language", "en", "zh", "a")
    # what was not asked in one of them is not undecided, it is no pair
    assert (found["n"], found["n_discordant"], found["n_undecided"], found["difference"]) == (4, 4, 0, 1.0)
    ethical = one(table, domain="EthV", metric="cs")
    assert (ethical["n"], ethical["difference"], ethical["p_value"]) == (0, None, None)


def test_members_of_a_family_are_paired_through_the_family() -> None:
    rows = checkpoint("a", [SURE] * 10)
    rows += checkpoint("a", [SURE] * 10, variant="augmented/wording=0") + checkpoint("a", [AGAINST] * 10, variant="augmented/wording=1")
    table = differences(panel_of(rows), BOOTSTRAP).filter(domain="all")
    assert table.select("left", "right").unique().rows() == [("direct", "augmented")]
    assert one(table, metric="cs")["difference"] == pytest.approx(0.5)
    # probabilities (0.9, 0.1) and (0.2, 0.8) average to a deed of option 0, so decisions still match
    assert one(table, metric="cs_debiased")["difference"] == 0.0
    assert one(table, metric="cs_debiased")["p_value"] == 1.0


def test_trials_are_averaged_before_they_are_decided() -> None:
    trials = [entry for trial, deed in enumerate([SURE, (0.4, 0.6), (0.4, 0.6)]) for entry in checkpoint("a", [deed], trial=trial)]
    table = differences(panel_of(trials + checkpoint("b", [AGAINST])), BOOTSTRAP).filter(domain="all")
    # a third of the trials match, but the mean probabilities (0.567, 0.433) do
    assert one(table, metric="cs")["difference"] == pytest.approx(1 / 3)
    assert one(table, metric="cs_debiased")["n_left_only"] == 1


def test_the_interval_of_unequal_answers_is_over_the_items_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = panel_of(checkpoint("a", A) + checkpoint("b", B))
    monkeypatch.setattr(paired, "ROWS_BYTES", 1)  # a row at a time: the draws stay the same
    found = one(differences(panel, BOOTSTRAP), domain="all", metric="cs")
    change = np.array([0, 0, 1, 1, 1, 0.5, -1, 0, 0, 0], dtype=float)
    weights = np.array([1] * 9 + [0], dtype=float)
    low, high = intervals(change[None], weights[None], BOOTSTRAP, "all")[0]
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((low, high))


def test_differences_under_the_noise_floor_are_marked() -> None:
    panel = panel_of(checkpoint("a", [SURE] * 10) + checkpoint("b", [SURE] * 9 + [AGAINST]))

    def floors(**of: float) -> pl.DataFrame:
        rows = [("cs", name, floor) for name, floor in of.items()]
        return pl.DataFrame(
            [
                {"checkpoint_id": name, "variant": "direct", "language": "en", "domain": "all", "metric": metric, "floor": floor}
                for metric, name, floor in rows
            ],
            schema=NOISE,
        )

    def mark(known: pl.DataFrame) -> tuple[Any, Any]:
        found = one(differences(panel, Bootstrap(0), known), domain="all", metric="cs")
        return found["noise"], found["below_noise"]

    # the difference is 0.1; the larger floor of both sides counts
    assert mark(floors(a=0.05, b=0.2)) == (0.2, True)
    assert mark(floors(a=0.05, b=0.02)) == (0.05, False)
    assert mark(floors(b=0.1)) == (0.1, True)
    assert mark(floors(c=0.5)) == (None, None)


def test_no_difference_is_below_a_floor_of_nothing() -> None:
    panel = panel_of(checkpoint("a", A) + checkpoint("b", A))
    floor = {"checkpoint_id": "a", "variant": "direct", "language": "en", "domain": "all", "metric": "cs", "floor": 0.0}
    found = one(differences(panel, Bootstrap(0), pl.DataFrame([floor], schema=NOISE)), domain="all", metric="cs")
    assert (found["difference"], found["below_noise"], found["p_value"]) == (0.0, True, 1.0)


def test_one_way_of_asking_has_nothing_to_be_compared_with() -> None:
    table = differences(panel_of(checkpoint("a", A)), BOOTSTRAP)
    assert table.height == 0
    assert table.columns == schema.SCORES_DIFFERENCES.names


def test_the_interval_of_a_paired_difference_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        # two checkpoints that agree on most items: the true difference is 0.2 * (1 - 2 * 0.3) = 0.08
        left = (generator.random(150) < 0.7).astype(float)
        right = np.where(generator.random(150) < 0.2, 1 - left, left)
        values = np.stack([left, right])[:, None, :]
        low, high = paired._intervals(values, [(0, 1)], Bootstrap(300, seed=seed, level=0.9), "all")[0, 0]
        covered += int(low - 1e-9 <= 0.2 * (2 * 0.7 - 1) <= high + 1e-9)
    # binomial with 0.9: mean 180, standard deviation 4.2; four of them either way
    assert 163 <= covered <= 197
