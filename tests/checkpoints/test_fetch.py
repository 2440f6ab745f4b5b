from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints.digest import digest
from wdct_dist.checkpoints.fetch import fetch_model
from wdct_dist.errors import CheckpointError, ConfigError

BuildCheckpoint = Callable[..., Path]


def test_a_directory_is_verified_where_it_is(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    directory = build_checkpoint()
    assert fetch_model("model", base=tmp_path) == (directory, digest(directory))


def test_names_start_at_the_working_directory(build_checkpoint: BuildCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = build_checkpoint()
    monkeypatch.chdir(tmp_path)
    assert fetch_model("model")[0] == directory


def test_a_broken_directory_is_refused(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    (build_checkpoint() / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cut short"):
        fetch_model("model", base=tmp_path)


def test_several_models_are_fetched_one_by_one(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    build_checkpoint("a1")
    build_checkpoint("a2")
    with pytest.raises(ConfigError, match=r"`a\*` matches 2 checkpoints; fetch them one by one"):
        fetch_model("a*", base=tmp_path)


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`\./nothing` does not exist"):
        fetch_model("./nothing", base=tmp_path)
