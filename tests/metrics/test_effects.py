"""Marginal effects of factors, worked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.effects import effects, family_rows
from wdct_dist.metrics.panel import Panel, build_panel
from wdct_dist.tables import schema

BOOTSTRAP = Bootstrap(200)


def panel_of(rows: list[dict[str, Any]], num_items: int) -> Panel:
    items = pl.DataFrame({"item_id": [f"i{number:02}" for number in range(num_items)], "domain": ["Opinion"] * num_items}).lazy()
    return build_panel(pl.DataFrame(rows, schema=polars_schema(schema.SCORES_ITEMS)).lazy(), items)


def member(settings: str, matches: list[float | None], **probs: Any) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint_id": "a",
            "variant": f"augmented/{settings}",
            "language": "en",
            "trial": 0,
            "item_id": f"i{item:02}",
            "num_options": 2,
            "match": match,
            "pcs": match,
        }
        | {name: values[item] for name, values in probs.items()}
        for item, match in enumerate(matches)
    ]


def figures(table: pl.DataFrame, metric: str = "cs") -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    rows = table.filter(domain="all", metric=metric).select("factor", "factor_level", "value", "effect", "n").iter_rows()
    return {(factor, level): (value, effect, n) for factor, level, value, effect, n in rows}


def test_a_full_product_is_averaged_over_the_other_factors() -> None:
    rows = member("labels=letters/wording=0", [1, 1, 1, 0]) + member("labels=letters/wording=1", [1, 1, 0, 0])
    rows += member("labels=digits/wording=0", [1, 0, 0, 0]) + member("labels=digits/wording=1", [1, 0, 0, 0])
    table = effects(panel_of(rows, 4), BOOTSTRAP)
    # member means 0.75, 0.5, 0.25, 0.25
    assert figures(table) == {
        ("labels", "digits"): (pytest.approx(0.25), pytest.approx(-0.1875), 4),
        ("labels", "letters"): (pytest.approx(0.625), pytest.approx(0.1875), 4),
        ("wording", "0"): (pytest.approx(0.5), pytest.approx(0.0625), 4),
        ("wording", "1"): (pytest.approx(0.375), pytest.approx(-0.0625), 4),
    }
    assert figures(table, "pcs") == figures(table)
    first = table.row(0, named=True)
    assert (first["checkpoint_id"], first["language"], first["family"], first["level"]) == ("a", "en", "augmented", 0.95)


def test_the_interval_is_over_items() -> None:
    # the effect of an item is 0.5 or 0, by halves; digits less letters
    rows = member("labels=letters", [1] * 40) + member("labels=digits", [0, 1] * 20)
    low, high = (
        effects(panel_of(rows, 40), Bootstrap(1000)).filter(domain="all", metric="cs", factor_level="digits")["ci_low", "ci_high"].row(0)
    )
    # effects of items are -0.5 and 0: mean -0.25, standard deviation 0.25 / sqrt(40) = 0.04
    assert low == pytest.approx(-0.25 - 1.96 * 0.0395, abs=0.02)
    assert high == pytest.approx(-0.25 + 1.96 * 0.0395, abs=0.02)


def test_a_sample_of_the_product_does_not_mix_factors() -> None:
    # truth: letters 0.6, digits 0.4; wording 0 adds 0.2, wording 1 nothing, wording 2 takes 0.1
    by_labels, by_wording = {"letters": 0.6, "digits": 0.4}, {"0": 0.2, "1": 0.0, "2": -0.1}
    product = list(itertools.product(by_labels, by_wording))
    # plain averages would give letters 0.633 and digits 0.35, as digits met the worst wording and not the best
    sampled = [pair for pair in product if pair not in [("digits", "0"), ("letters", "2")]]
    rows = [
        entry
        for labels, wording in sampled
        for entry in member(f"labels={labels}/wording={wording}", [by_labels[labels] + by_wording[wording]] * 3)
    ]
    found = figures(effects(panel_of(rows, 3), BOOTSTRAP))
    assert found["labels", "letters"][1] == pytest.approx(0.1)
    assert found["labels", "digits"][1] == pytest.approx(-0.1)
    mean = sum(by_wording.values()) / 3
    for level, addition in by_wording.items():
        assert found["wording", level][:2] == (pytest.approx(0.5 + addition), pytest.approx(addition - mean))
    assert found["labels", "letters"][0] == pytest.approx(0.6 + mean)


def test_factors_that_always_change_together_cannot_be_told_apart() -> None:
    rows = member("labels=letters/wording=0", [1, 1]) + member("labels=digits/wording=1", [0, 0])
    found = figures(effects(panel_of(rows, 2), BOOTSTRAP))
    assert set(found.values()) == {(None, None, 0)}


def test_an_item_counts_for_a_factor_where_it_has_all_its_levels() -> None:
    # items 2 and 3 have no paraphrase; their CS is lower, which must not look like an effect of paraphrasing
    rows = member("paraphrase=0/wording=0", [1, 1, 0, 0]) + member("paraphrase=0/wording=1", [1, 0, 0, 0])
    rows += member("paraphrase=1/wording=0", [1, 1]) + member("paraphrase=1/wording=1", [1, 0])
    found = figures(effects(panel_of(rows, 4), BOOTSTRAP))
    assert found["paraphrase", "0"] == (pytest.approx(0.75), pytest.approx(0.0), 2)
    assert found["paraphrase", "1"] == (pytest.approx(0.75), pytest.approx(0.0), 2)
    # all four count for the wording
    assert found["wording", "0"] == (pytest.approx(0.5), pytest.approx(0.125), 4)


def test_an_item_without_one_answer_keeps_what_its_other_answers_say() -> None:
    rows = [
        entry
        for labels, wording, matches in [("a", 0, [0.8, 0.8]), ("a", 1, [0.6, 0.6]), ("b", 0, [0.4, 0.4]), ("b", 1, [0.2, None])]
        for entry in member(f"labels={labels}/wording={wording}", matches)  # type: ignore[arg-type]
    ]
    found = figures(effects(panel_of(rows, 2), BOOTSTRAP))
    assert found["labels", "a"] == (pytest.approx(0.7), pytest.approx(0.2), 2)
    assert found["wording", "1"] == (pytest.approx(0.4), pytest.approx(-0.1), 2)


def test_a_factor_with_one_level_has_no_effect_and_a_missing_one_is_a_level() -> None:
    rows = member("labels=a/system=none", [1, 0]) + member("labels=b/system=none", [1, 1]) + member("labels=b", [0, 0])
    table = effects(panel_of(rows, 2), BOOTSTRAP)
    assert [key for key in figures(table) if key[0] == "system"] == [("system", "none"), ("system", "-")]
    alone = effects(panel_of(member("labels=a/system=none", [1, 0]) + member("labels=b/system=none", [1, 1]), 2), BOOTSTRAP)
    assert {factor for factor, _ in figures(alone)} == {"labels"}


def test_variants_that_stand_alone_have_no_effects() -> None:
    rows = [entry | {"variant": "direct"} for entry in member("labels=a", [1, 0])]
    table = effects(panel_of(rows, 2), BOOTSTRAP)
    assert table.height == 0
    assert table.columns == schema.SCORES_EFFECTS.names
    assert family_rows(panel_of(rows, 2), BOOTSTRAP).height == 0


def test_cs_of_the_averaged_probabilities_is_another_figure_than_the_average_cs() -> None:
    word = [[1.0, 0.0], [0.6, 0.4], None]
    rows = member("wording=0", [1, 0, None], word_probs=word, deed_probs=[[0.9, 0.1], [0.4, 0.6], None])
    rows += member("wording=1", [0, 0, None], word_probs=word, deed_probs=[[0.3, 0.7], [0.2, 0.8], None])
    found = family_rows(panel_of(rows, 3), BOOTSTRAP).filter(domain="all")
    assert found["variant"].unique().to_list() == ["augmented"]
    assert found["n"].to_list() == [2, 2, 2, 2]
    values = dict(found.select("metric", "value").iter_rows())
    # item 0: (0.9 + 0.3) / 2 = 0.6 for option 0 as in words, so it matches; item 1: 0.3 against words' 0.6
    assert (values["cs"], values["cs_averaged"]) == (0.25, 0.5)

    def pcs(p: float, q: float) -> float:
        one, other = np.array([p, 1 - p]), np.array([q, 1 - q])
        entropy = [-(x[x > 0] * np.log2(x[x > 0])).sum() for x in (one, other, (one + other) / 2)]
        return float(1 - entropy[2] + (entropy[0] + entropy[1]) / 2)

    assert values["pcs_averaged"] == pytest.approx((pcs(1.0, 0.6) + pcs(0.6, 0.3)) / 2, abs=1e-12)
