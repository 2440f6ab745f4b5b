"""The script that draws: made once a machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import vl_convert

from wdct_dist.report.html import charts


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    charts.javascript.cache_clear()
    yield
    charts.javascript.cache_clear()


def test_the_script_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    script = charts.javascript()
    assert "vegaEmbed" in script
    monkeypatch.delattr(vl_convert, "javascript_bundle")
    charts.javascript.cache_clear()
    assert charts.javascript() == script


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    assert "vegaEmbed" in charts.javascript()
