"""The published range beside a run of the published protocol."""

from __future__ import annotations

from typing import Any

import polars as pl

from wdct_dist.config.schema import Config, Protocol


def test_a_run_of_the_protocol_stands_beside_the_published_range_with_its_source(summary: Any, printed: Any, flat: Any) -> None:
    frame = summary(("low", {"cs": 0.44}), ("one", {"cs": 0.5}), ("two", {"cs": 0.71}), ("high", {"cs": 0.8}), ("none", {"cs": None}))
    frame = frame.with_columns(variant=pl.lit("paper"))
    others = [summary(("one", {"cs": 0.9})), frame.with_columns(language=pl.lit("zh"))]
    text = flat(printed(pl.concat([frame, *others]), config=Config(protocol=Protocol.paper)))
    assert "average CS from 0.50 to 0.76 over its 12 models (arXiv 2503.07003" in text
    assert "Of this run: one (0.500), two (0.710) in it; low (0.440) below it; high (0.800) above it." in text


def test_other_runs_are_not_compared_with_it(summary: Any, printed: Any) -> None:
    assert "2503.07003" not in printed(summary(("one", {})))
