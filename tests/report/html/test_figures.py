"""The figures that charts read."""

from __future__ import annotations

from typing import Any

from wdct_dist.report.html.figures import MOST_CHARACTERS, figures, short_names
from wdct_dist.report.rows import rows_of


def test_names_lose_what_all_begin_with_up_to_a_sign_that_parts_them() -> None:
    assert short_names(["org/model@step100", "org/model@step2000"]) == {"org/model@step100": "step100", "org/model@step2000": "step2000"}
    assert short_names(["alpha", "alpine"]) == {"alpha": "alpha", "alpine": "alpine"}
    assert short_names(["org/model"]) == {"org/model": "org/model"}


def test_long_names_lose_their_middle_unless_they_would_be_the_same() -> None:
    long = "a" * 50
    assert all(len(name) <= MOST_CHARACTERS for name in short_names([f"x{long}1", f"y{long}2"]).values())
    alike = [f"xxxxxxxxxxxxxxxxxxxx{middle}yyyyyyyyyyyyyyyyyyyy" for middle in "ab"]
    assert short_names(alike) == {name: name for name in alike}


def test_a_figure_has_its_interval_chance_and_step(summary: Any) -> None:
    found = figures(rows_of(summary(("run/step-10", {}), ("run/step-20", {"cs": None}), domains=["EthV"])))
    assert found[0] == {
        "checkpoint": "run/step-10", "name": "10", "asked": "direct", "domain": "all", "metric": "cs", "value": 0.71, "low": 0.71 - 0.04,
        "high": 0.71 + 0.04, "items": 500, "chance": 0.5, "series": "run/step", "step": 10,
    }  # fmt: skip
    assert [one["domain"] for one in found] == ["all", "all", "EthV", "EthV", "all", "EthV"]
    assert {one["metric"] for one in found if one["step"] == 20} == {"pcs"}
