from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.cache import cache_root


def test_the_environment_says_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"


def test_a_relative_cache_is_made_absolute_so_that_other_processes_find_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WDCT_CACHE", "here")
    assert cache_root() == tmp_path / "here"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_setting_the_cache_is_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WDCT_CACHE", raising=False) if value is None else monkeypatch.setenv("WDCT_CACHE", value)
    assert cache_root() == tmp_path / ".cache" / "wdct_dist"
