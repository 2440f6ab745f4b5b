"""Engines that know nothing come out at chance, through the whole pipeline in this process."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from wdct_dist.config.load import load_config
from wdct_dist.pipeline import evaluate
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.run_dir import SUMMARY

CONFIG = """
run_dir: {run}
checkpoints: [{checkpoints}]
engine: {{kind: scripted, scripted: {{bias: {bias}, strength: 40}}}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 200}}
"""


def summary_of(folder: Path, bias: str, checkpoints: int) -> pl.DataFrame:
    """`value`, `ci_low`, `ci_high` of each checkpoint and metric over all items, with `chance` beside them."""
    file = folder / "chance.yaml"
    names = ", ".join(f"r{number}" for number in range(checkpoints))
    file.write_text(CONFIG.format(run=folder / "run", checkpoints=names, bias=bias))
    config = load_config(file)
    outcome = evaluate(config)
    assert outcome.exit_code == 0
    summary = pl.DataFrame(read_table(outcome.store, SUMMARY)).filter(domain="all")
    chance = summary.filter(metric="cs_chance").select("checkpoint_id", chance="value")
    return summary.join(chance, on="checkpoint_id")


def covered(summary: pl.DataFrame, metric: str) -> int:
    """Checkpoints whose interval holds chance."""
    own = summary.filter(metric=metric)
    return int(((own["ci_low"] <= own["chance"] + 1e-12) & (own["chance"] - 1e-12 <= own["ci_high"])).sum())


@pytest.mark.parametrize("metric", ["cs", "cs_debiased"])
def test_an_engine_that_always_answers_the_first_label_is_at_chance(tmp_path: Path, metric: str) -> None:
    summary = summary_of(tmp_path, "first", 1)
    assert covered(summary, metric) == 1
    found = summary.filter(metric=metric).to_dicts()[0]
    # in every item each option comes first equally often on both sides, so every item stands at its own 1/k
    by_chance = summary.filter(metric="cs_chance").to_dicts()[0]
    for figure in ("value", "ci_low", "ci_high"):
        assert found[figure] == pytest.approx(by_chance[figure], abs=1e-12)
    values = dict(summary.select("metric", "value").iter_rows())
    assert values["position_first_word"] == 1.0
    assert (values["stable_word"], values["stable_deed"], values["cs_stable"]) == (0.0, 0.0, None)


def test_an_engine_that_answers_at_random_is_at_chance(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, "none", 30)
    for metric in ("cs", "cs_debiased"):
        # binomial with 0.95: fewer than 24 of 30 have a chance of 1 in 1000
        assert covered(summary, metric) >= 24
        values = summary.filter(metric=metric)
        mean = float(values["value"].mean())  # type: ignore[arg-type]
        spread = float(values["value"].std()) / 30**0.5  # type: ignore[arg-type]
        assert abs(mean - values["chance"][0]) < 4 * spread
