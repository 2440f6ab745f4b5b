"""The script that draws: made once a machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import vl_convert

from wdct_dist.report.html import charts
from wdct_dist.report.timeline import Session, Span


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


def session(number: int, seconds: float, *spans: Span) -> Session:
    return Session(number, f"2026-01-01T0{number}:00:00.000+00:00", seconds, 0, spans)


def test_the_timeline_has_every_session_one_after_another_without_the_time_between_them() -> None:
    first = session(1, 100, Span(0, "loading", "a", 0, 40), Span(0, "evaluating", "a", 40, 100))
    # the second one had no engine; the fourth begins too soon after the third for its number to have room
    worked = [first, session(3, 2, Span(1, "evaluating", "b", 1, 2)), session(4, 98, Span(0, "evaluating", "c", 0, 98))]
    chart = charts.timeline(worked)
    bars, lines, numbers = (chart.spec["datasets"][layer["data"]["name"]] for layer in chart.spec["layer"])
    assert [(bar["engine"], bar["session"], bar["from_s"], bar["to_s"]) for bar in bars] == [
        (0, 1, 0, 40), (0, 1, 40, 100), (0, 4, 102, 200), (1, 3, 101, 102),
    ]  # fmt: skip
    assert [(line["from_s"], line["begun"]) for line in lines][1:] == [(100, "2026-01-01 03:00:00 UTC"), (102, "2026-01-01 04:00:00 UTC")]
    assert [one["number"] for one in numbers] == ["1", "3", ""]
    assert "the time between the 3 sessions is left out" in chart.text


def test_the_timeline_of_one_session_has_no_marks() -> None:
    chart = charts.timeline([session(1, 100, Span(0, "loading", "a", 0, 40))])
    assert "layer" not in chart.spec
    assert chart.text.endswith("evaluating, or idle.")
