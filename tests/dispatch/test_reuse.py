"""Engines that go from checkpoint to checkpoint, with the scripted engine: in this process, and on a real local Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

CONFIG = """
run_dir: {run}
data: {{limit: 12}}
checkpoints: [alpha, beta, gamma]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{shard_size: 16}}
metrics: {{bootstrap_resamples: 10}}
"""
LOADS = ("engine started", "engine swapped", "swap refused", "swap failed", "start failed", "checkpoint failed")


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and what it left."""

    folder: Path
    returncode: int
    stderr: str
    executor: str

    @property
    def loads(self) -> list[tuple[str, str]]:
        return [(event["event"], event["checkpoint"]) for event in self.events() if event["event"] in LOADS]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def answers(self) -> pl.DataFrame:
        return pl.scan_ipc(str(self.folder / "answers" / "*.arrow")).collect().sort("checkpoint_id", "prompt_id")

    def num_swaps(self, checkpoint: str) -> set[int]:
        """Of the engine that answered, from the metadata of the checkpoint's shards."""
        shards = [pa.ipc.open_file(str(path)) for path in (self.folder / "answers").glob(f"*{checkpoint}*.arrow")]
        return {json.loads(shard.schema.metadata[b"wdct.facts"])["engine"]["num_swaps"] for shard in shards}


@pytest.fixture(params=["local", "ray"])
def evaluate(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def evaluated(*overrides: str, name: str = "run") -> Ended:
        config = tmp_path / f"{name}.yaml"
        config.write_text(CONFIG.format(run=tmp_path / name))
        command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config), f"dispatch.executor={request.param}", *overrides]
        result = subprocess.run(command, capture_output=True, text=True, timeout=900)
        return Ended(tmp_path / name, result.returncode, result.stderr, request.param)

    return evaluated


def test_one_engine_takes_every_checkpoint_and_answers_as_fresh_engines_do(evaluate: Any) -> None:
    swapped, restarted = evaluate(), evaluate("dispatch.reuse=restart", name="restarted")
    assert swapped.returncode == restarted.returncode == 0, swapped.stderr + restarted.stderr
    assert swapped.loads == [("engine started", "alpha"), ("engine swapped", "beta"), ("engine swapped", "gamma")]
    assert restarted.loads == [("engine started", name) for name in ("alpha", "beta", "gamma")]
    assert swapped.answers().equals(restarted.answers())
    assert [swapped.num_swaps(name) for name in ("alpha", "beta", "gamma")] == [{0}, {1}, {2}]
    assert all(event["seconds"] >= event["load_s"] >= 0 for event in swapped.events() if event["event"] == "engine swapped")


def test_an_engine_that_breaks_in_a_swap_is_replaced_and_the_checkpoint_is_not_blamed(evaluate: Any) -> None:
    ended = evaluate("engine.scripted.fail_swap=beta")
    assert ended.returncode == 0, ended.stderr
    wanted = [("engine started", "alpha"), ("swap failed", "beta"), ("engine started", "beta"), ("engine swapped", "gamma")]
    assert ended.loads == wanted
    assert ended.answers()["error"].null_count() == ended.answers().height
    assert "swap failed: engine 0, checkpoint beta, reason the scripted engine does not swap for beta" in ended.stderr


def test_a_checkpoint_that_no_fresh_engine_takes_either_has_failed_and_the_sweep_goes_on(evaluate: Any) -> None:
    ended = evaluate("engine.scripted.fail_start=beta")
    assert ended.returncode == 3, ended.stderr
    assert ended.loads[:2] == [("engine started", "alpha"), ("swap failed", "beta")]
    assert ended.loads[-2:] == [("checkpoint failed", "beta"), ("engine started", "gamma")]
    assert ended.answers()["checkpoint_id"].unique().sort().to_list() == ["alpha", "gamma"]


@pytest.mark.slow
def test_real_engines_swap_where_they_can_and_start_afresh_where_they_cannot(evaluate: Any, small_model: Path, tmp_path: Path) -> None:
    """Three checkpoints: the small model, with another last norm, and with two tokens of its vocabulary exchanged."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from safetensors.torch import load_file, save_file

    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        for file in small_model.iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    tensors = load_file(small_model / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.5
    (tmp_path / "two" / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((small_model / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = tokenizer["model"]["vocab"]
    tokens["A"], tokens["B"] = tokens["B"], tokens["A"]
    (tmp_path / "three" / "tokenizer.json").unlink()
    (tmp_path / "three" / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    paths = ",".join(str(tmp_path / name) for name in ("one", "two", "three"))
    ended = evaluate(f"checkpoints=[{paths}]", "engine={kind: vllm, max_model_len: 512, cpu_cache_gib: 0.25}", "data.limit=4")
    assert ended.returncode == 0, ended.stderr
    wanted = [("engine started", "one"), ("engine swapped", "two"), ("swap refused", "three"), ("engine started", "three")]
    assert ended.loads == wanted
    # its actor was there before the plan, importing vLLM
    assert [event["ahead"] for event in ended.events() if event["event"] == "pool"] == [1] * (ended.executor == "ray")
    [swapped] = [event for event in ended.events() if event["event"] == "engine swapped"]
    assert swapped["canary"] == "passed"
    assert (swapped["canary_num_tensors"], swapped["canary_num_told_apart"]) == (272, 1)
    assert 0 < swapped["canary_seconds"] < swapped["seconds"]
    [refused] = [event for event in ended.events() if event["event"] == "swap refused"]
    assert "another vocabulary" in refused["reason"]
    assert [ended.num_swaps(name) for name in ("one", "two", "three")] == [{0}, {1}, {0}]
    logprobs = ended.answers().group_by("checkpoint_id").agg(pl.col("option_logprobs").first())
    assert len({tuple(row) for row in logprobs["option_logprobs"]}) == 3
