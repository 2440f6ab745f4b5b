"""What Ray is told through the environment before it is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wdct_dist.dispatch.ray_environment import has_token, prepare

SET = ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment in which nothing is set for Ray, in a home that is empty."""
    for name in SET:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards, whatever `prepare` does
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_ray_sends_no_statistics_and_does_not_warn_of_hidden_gpus() -> None:
    prepare()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
    assert "RAY_AUTH_MODE" not in os.environ


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize("place", ["variable", "file that a variable names", "file in the home"])
def test_a_token_of_the_users_is_sent_wherever_ray_looks_for_it(place: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_token()
    file = bare / ".ray" / "auth_token"
    if place == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    elif place == "file that a variable names":
        file = bare / "elsewhere" / "token"
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        assert not has_token()
    if place != "variable":
        file.parent.mkdir()
        file.write_text("secret")
    prepare()
    assert os.environ["RAY_AUTH_MODE"] == "token"
