"""What the tests of reports share: summaries of made-up figures, and what is printed of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from wdct_dist.config.schema import Config
from wdct_dist.report.findings import Findings, Scores
from wdct_dist.report.terminal import print_report
from wdct_dist.tables import schema

GOOD: dict[str, float | None] = {
    "cs": 0.71, "cs_debiased": 0.74, "cs_chance": 0.5, "cs_stable": 0.8, "cs_lower": 0.71, "cs_upper": 0.71, "pcs": 0.83,
    "pcs_debiased": 0.9, "parse_rate": 1.0, "label_mass": 0.98, "tie_rate": 0.01, "suspicious_rate": 0.0, "position_word": 0.6,
    "position_deed": 0.6, "position_first_word": 0.5, "position_last_word": 0.5, "position_first_deed": 0.5, "position_last_deed": 0.5,
}  # fmt: skip


def make_summary(
    *checkpoints: tuple[str, dict[str, float | None]], variant: str = "direct", language: str = "en", domains: Any = ()
) -> pl.DataFrame:
    """A summary of 500 items with `GOOD` figures but for those given; intervals reach 0.04 to both sides."""
    rows = [
        {
            "checkpoint_id": name,
            "variant": variant,
            "language": language,
            "domain": domain,
            "metric": metric,
            "value": value,
            "ci_low": None if value is None else value - 0.04,
            "ci_high": None if value is None else value + 0.04,
            "level": 0.95,
            "n": 0 if value is None else 500,
        }
        for name, changed in checkpoints
        for domain in ("all", *domains)
        for metric, value in (GOOD | changed).items()
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(schema.SCORES_SUMMARY.empty_table()).schema)


def print_summary(
    frame: pl.DataFrame, *, width: int = 80, provenance: Any = None, encoding: str = "utf-8", config: Config | None = None, **more: Any
) -> str:
    """What `wdct report` prints of the summary `frame`."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_report(Findings(Scores(frame, **more), config or Config(), provenance or {}), Console(file=file, width=width))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture(scope="session")
def good() -> dict[str, float | None]:
    return GOOD


@pytest.fixture(scope="session")
def summary() -> Callable[..., pl.DataFrame]:
    return make_summary


@pytest.fixture(scope="session")
def printed() -> Callable[..., str]:
    return print_summary


@pytest.fixture(scope="session")
def flat() -> Callable[[str], str]:
    """A text without its line ends and runs of blanks."""
    return lambda text: " ".join(text.split())
