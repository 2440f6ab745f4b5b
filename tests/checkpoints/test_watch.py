from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints.watch import expand, read_watches
from wdct_dist.errors import ConfigError

BuildCheckpoint = Callable[..., Path]


def age(directory: Path, seconds: float = 60) -> None:
    """As if nothing in it had changed for so long."""
    for path in (*directory.iterdir(), directory):
        os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def old(build_checkpoint: BuildCheckpoint) -> Callable[[str], Path]:
    def build(name: str) -> Path:
        directory = build_checkpoint(name)
        age(directory)
        return directory

    return build


def found(base: Path, *, everything: bool = False) -> list[object]:
    return [entry["id"] for entry in expand([{"watch": "run1"}], base, everything=everything) if isinstance(entry, dict)]


def test_complete_checkpoints_are_found_in_natural_order_and_named_after_the_run(tmp_path: Path, old: Callable[[str], Path]) -> None:
    for step in (10, 2, 1):
        old(f"run1/checkpoint-{step}")
    (tmp_path / "run1" / "logs").mkdir()
    assert found(tmp_path) == ["run1/checkpoint-1", "run1/checkpoint-2", "run1/checkpoint-10"]


def test_other_entries_stay_as_they_are_and_where_they_are(tmp_path: Path, old: Callable[[str], Path]) -> None:
    directory = old("run1/checkpoint-1")
    entries = ["base", {"watch": "run1", "id": "dpo", "base": "base"}, "last"]
    assert expand(entries, tmp_path) == ["base", {"path": str(directory), "id": "dpo/checkpoint-1", "base": "base"}, "last"]


def test_a_checkpoint_that_is_still_written_is_not_there_yet(tmp_path: Path, old: Callable[[str], Path]) -> None:
    weights = old("run1/checkpoint-1") / "model.safetensors"
    assert found(tmp_path) == ["run1/checkpoint-1"]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    age(weights.parent)
    assert found(tmp_path) == [], "cut short, however long ago"
    weights.write_bytes(whole)
    os.utime(weights, (time.time() + 60,) * 2)  # so that it stays a moment ago, however long it takes from here
    assert found(tmp_path) == [], "whole, but changed a moment ago"
    age(weights.parent)
    assert found(tmp_path) == ["run1/checkpoint-1"]


def test_a_shard_that_the_index_names_is_waited_for(tmp_path: Path, sharded: Path) -> None:
    (tmp_path / "run1").mkdir()
    checkpoint = sharded.rename(tmp_path / "run1" / "checkpoint-1")
    shard = (checkpoint / "model-00002-of-00002.safetensors").rename(tmp_path / "aside")
    age(checkpoint)
    assert found(tmp_path) == []
    shard.rename(checkpoint / "model-00002-of-00002.safetensors")
    age(checkpoint)
    assert found(tmp_path) == ["run1/checkpoint-1"]


def test_when_training_is_over_what_is_not_whole_is_taken_too_so_that_it_is_named_as_broken(
    tmp_path: Path, old: Callable[[str], Path]
) -> None:
    (old("run1/checkpoint-1") / "model.safetensors").write_bytes(b"")
    [watch] = read_watches([{"watch": "run1"}], tmp_path)
    assert not watch.is_over
    (tmp_path / "run1" / "done").touch()
    assert watch.is_over
    assert found(tmp_path) == []
    assert found(tmp_path, everything=True) == ["run1/checkpoint-1"]


def test_a_directory_that_is_not_there_yet_may_be_watched(tmp_path: Path) -> None:
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"watch": "run1", "path": "x"}, "unknown key 'path'; allowed are watch, until, id, base, settle_s"),
        ({"watch": 7}, "`watch`: 7 is not allowed"),
        ({"watch": None}, "watches nothing; give the directory that training writes to"),
        ({"watch": "file"}, "file is a file; allowed is a directory, also one that is not there yet"),
        ({"watch": "run1", "settle_s": -1}, "`settle_s`: -1 is not allowed; allowed are seconds from 0 on"),
    ],
)
def test_a_watch_that_cannot_be_meant_is_refused(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as raised:
        read_watches([entry], tmp_path)
    assert message in str(raised.value)
