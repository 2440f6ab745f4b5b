"""Paired differences in a report."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.cells import cell_len

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.report.differences import MOST_ROWS
from wdct_dist.tables import schema

ONE: dict[str, Any] = {
    "kind": "checkpoint", "left": "base", "right": "tuned", "variant": "direct", "language": "en", "domain": "all",
    "metric": "cs_debiased", "difference": 0.08, "ci_low": 0.02, "ci_high": 0.14, "p_value": 0.004, "p_holm": 0.012, "n": 500,
}  # fmt: skip


def differences(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([ONE | one for one in changes], schema=polars_schema(schema.SCORES_DIFFERENCES))


def test_a_pair_stands_once_with_its_corrected_p_value(summary: Any, printed: Any, flat: Any) -> None:
    text = printed(summary(("base", {})), differences=differences({}, {"metric": "pcs", "p_holm": None, "difference": -0.01}))
    assert "base − tuned (direct, en) CS deb. +0.080 [+0.020, +0.140] 0.012 PCS -0.010 [+0.020, +0.140] -" in flat(text)
    # each kind is a family of its own, as the table's `family_size` says
    assert "corrected by Holm's method over all pairs of checkpoints, of variants or of languages" in flat(text)
    assert "noise" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= 80


def test_what_is_not_more_than_noise_is_marked(summary: Any, printed: Any, flat: Any) -> None:
    found = differences({"below_noise": True}, {"metric": "cs", "below_noise": False}, {"metric": "pcs"})
    text = flat(printed(summary(("base", {})), differences=found))
    assert "0.012 below CS +0.080 [+0.020, +0.140] 0.012 above PCS +0.080 [+0.020, +0.140] 0.012 p:" in text
    assert "below where A/A repeats of the same checkpoint differ as much" in text


def test_rows_beyond_the_most_are_counted(summary: Any, printed: Any, flat: Any) -> None:
    found = differences(*({"right": f"c{number}"} for number in range(MOST_ROWS + 2)))
    text = flat(printed(summary(("base", {})), differences=found))
    assert f"c{MOST_ROWS - 1} (" in text
    assert f"c{MOST_ROWS} (" not in text
    assert f"{MOST_ROWS} of {MOST_ROWS + 2} rows; all are in scores/differences.arrow" in text


def test_domains_and_other_metrics_are_left_to_the_table_on_disk(summary: Any, printed: Any) -> None:
    found = differences({"domain": "EthV"}, {"metric": "pcs_debiased"}, {"difference": None})
    assert "Paired differences" not in printed(summary(("base", {})), differences=found)
