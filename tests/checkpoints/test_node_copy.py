"""A described directory, and what a trainer does to it before an engine loads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.node_copy import on_this_node
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.config.schema import Config, EngineConfig, EngineKind
from wdct_dist.dispatch.worker import Worker, WorkerSpec
from wdct_dist.errors import CheckpointError

BuildCheckpoint = Callable[..., Path]


def described(directory: Path) -> Checkpoint:
    return describe(Source("demo", str(directory)), allow_pickle=False, trust_remote_code=False)


def overwrite(file: Path) -> None:
    """As training saves to the same place again: other bytes, the same size."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_weights_that_were_overwritten_since_are_not_evaluated_as_the_old_ones(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    checkpoint = described(build_checkpoint())
    overwrite(checkpoint.directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint 'demo': .*has changed since it was described; give the same command again"):
        on_this_node(checkpoint, max_gib=None, allow_pickle=False)
    config = Config(engine=EngineConfig(kind=EngineKind.scripted))
    with pytest.raises(CheckpointError, match="has changed"):
        Worker(WorkerSpec(str(tmp_path), checkpoint, config, {})).start()


def test_a_directory_of_which_a_file_is_gone_says_so(build_checkpoint: BuildCheckpoint, sharded: Path) -> None:
    checkpoint = described(sharded)
    next(sharded.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="is no longer whole"):
        on_this_node(checkpoint, max_gib=None, allow_pickle=False)


def test_the_same_contents_under_another_time_are_the_same(build_checkpoint: BuildCheckpoint) -> None:
    checkpoint = described(build_checkpoint())
    os.utime(checkpoint.directory / "model.safetensors", (1, 1))
    with on_this_node(checkpoint, max_gib=None, allow_pickle=False) as lease:
        assert lease.directory == checkpoint.directory


def test_a_node_that_finds_other_weights_under_the_same_name_does_not_evaluate_them(
    build_checkpoint: BuildCheckpoint, tmp_path: Path
) -> None:
    checkpoint = described(build_checkpoint())
    elsewhere = replace(checkpoint, directory=tmp_path / "on the driver's disk", stamp="")  # as a hub's snapshot, or a converted file
    with on_this_node(elsewhere, max_gib=None, allow_pickle=False) as lease:
        assert lease.directory == checkpoint.directory
    overwrite(checkpoint.directory / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not on this node what was described"):
        on_this_node(elsewhere, max_gib=None, allow_pickle=False)
