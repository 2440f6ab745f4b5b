"""The summary: every metric, for all domains together and for each."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.summary import METRICS, summarise, summary_csv
from wdct_dist.tables import schema

CONTRACT = {
    "cs", "cs_debiased", "pcs", "pcs_debiased", "cs_chance", "cs_stable", "stable_word", "stable_deed", "accuracy_word", "accuracy_deed",
    "parse_rate", "refusal_rate", "label_mass", "tie_rate", "trial_agreement", "cs_lower", "cs_upper",
}  # fmt: skip


def summary(values: list[float | None], domains: list[str], order: list[str], bootstrap: Bootstrap) -> pl.DataFrame:
    """The summary of items that have these values in every metric."""
    numerators = {name: [value or 0.0 for value in values] for name in METRICS}
    denominators = {f"{name}/": [float(value is not None) for value in values] for name in METRICS}
    frame = pl.DataFrame({**numerators, **denominators, "domain": domains})
    return summarise(frame, order, bootstrap, checkpoint_id="c", variant="direct", language="en")


def test_every_metric_of_the_contract_is_there() -> None:
    assert set(METRICS) >= CONTRACT


def test_all_domains_stand_first_then_each_in_the_given_order() -> None:
    found = summary([1.0, 0.0, 0.5, 1.0], ["b", "a", "b", "a"], ["b", "a", "absent"], Bootstrap(10))
    rows = found.filter(pl.col("metric") == "cs").select("domain", "value", "n").rows()
    assert rows == [("all", 0.625, 4), ("b", 0.75, 2), ("a", 0.5, 2)]
    assert found.columns == schema.SCORES_SUMMARY.names
    assert found.height == 3 * len(METRICS)


def test_undefined_is_null_and_so_is_the_interval_of_too_few_items() -> None:
    found = summary([1.0, None, None], ["a", "b", "b"], ["a", "b"], Bootstrap(10)).filter(pl.col("metric") == "cs")
    rows = found.select("domain", "value", "ci_low", "ci_high", "level", "n").rows()
    assert rows == [("all", 1.0, None, None, 0.95, 1), ("a", 1.0, None, None, 0.95, 1), ("b", None, None, None, 0.95, 0)]


def test_a_value_lies_in_its_interval() -> None:
    found = summary([0.0, 0.5, 1.0] * 20, ["a"] * 60, ["a"], Bootstrap(200)).filter(pl.col("metric") == "pcs").row(0, named=True)
    assert found["ci_low"] < found["value"] == 0.5 < found["ci_high"]
    assert found["ci_high"] - found["ci_low"] == pytest.approx(2 * 1.96 * 0.408 / 60**0.5, rel=0.2)


def test_csv_has_a_head_line_and_empty_fields_for_null() -> None:
    text = summary_csv(summary([1.0, None], ["a", "甲"], ["a", "甲"], Bootstrap(10)))
    lines = text.splitlines()
    assert lines[0] == "checkpoint_id,variant,language,domain,metric,value,ci_low,ci_high,level,n"
    assert "c,direct,en,a,cs,1.0,,,0.95,1" in lines
    assert "c,direct,en,甲,cs,,,,0.95,0" in lines


def test_a_name_with_a_comma_stays_one_field(tmp_path: Any) -> None:
    frame = summary([1.0], ["a"], ["a"], Bootstrap(0)).with_columns(checkpoint_id=pl.lit('a,"b"\nc'))
    (tmp_path / "summary.csv").write_text(summary_csv(frame))
    assert pl.read_csv(tmp_path / "summary.csv")["checkpoint_id"].unique().to_list() == ['a,"b"\nc']
