"""Stages that two workers train together, by Ray Train in a real Ray of two cores: of the real small model, once of one of two layers."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.align.stage import Question, Settings, Stage
from wdct_dist.align.types import Example, Pair
from wdct_dist.config.align_schema import DivergenceConfig, DpoConfig, LoraConfig, Optimizer, Precision, StageConfig
from wdct_dist.config.schema import PromptConfig
from wdct_dist.prompts.types import Message

pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")

pytestmark = [
    pytest.mark.slow,
    # torch, transformers and TRL warn about each other
    pytest.mark.filterwarnings("ignore"),
]

PROGRAM = """
import json
import pickle
import sys
from functools import partial
from pathlib import Path

from wdct_dist.aligning import train_stage
from wdct_dist.config.schema import DispatchConfig
from wdct_dist.dispatch import ray_environment
from wdct_dist.dispatch.task_size import size_task

ray_environment.prepare()

from wdct_dist.dispatch.ray_task import Task, run_tasks

stage = pickle.loads(Path(sys.argv[1]).read_bytes())
said = []
outcome = run_tasks(
    [Task(stage.title, None, lambda _: stage)],
    train_stage,
    partial(size_task, 1, None, workers=2),
    DispatchConfig(),
    max_attempts=2,
    take=lambda report: True,
    say=lambda event, **facts: said.append([event, facts.get("reason", "")]),
    watch=lambda: None,
)
results = {name: [report.num_steps, report.resumed_at, report.diverged] for name, report in outcome.results.items()}
print(json.dumps({"said": said, "results": results, "failed": {name: repr(error) for name, error in outcome.failed.items()}}))
"""

SHARDING = """
import os
import pickle
import sys
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing
from accelerate.state import AcceleratorState, DistributedType, PartialState

from wdct_dist.align import trainer
from wdct_dist.align.stage import Stage


def allow_sharding_on_cpus():
    # accelerate shards on accelerators alone (1.15), although torch does it over gloo too
    init = AcceleratorState.__init__

    def allowing(self, *rest, fsdp_plugin=None, **others):
        init(self, *rest, fsdp_plugin=fsdp_plugin, **others)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = allowing


class Look(trainer._Watch):
    def on_train_begin(self, args, state, control, model=None, **rest):
        from torch.distributed.fsdp import FSDPModule

        parts = sum(isinstance(module, FSDPModule) for module in model.modules())
        Path(self._stage.folder / f"parts.{dist.get_rank()}").write_text(str(parts))
        super().on_train_begin(args, state, control, **rest)


def work(rank, file, port):
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in own.items()}, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    store = dist.TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    allow_sharding_on_cpus()
    Stage.is_sharded = True
    trainer._Watch = Look
    trainer.train(pickle.loads(Path(file).read_bytes()))


if __name__ == "__main__":
    # its port is its own from the start: one that was looked for before might be another's by now
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(work, args=(sys.argv[1], store.port), nprocs=2)
"""

TOPICS = ["rain", "the sea", "old books", "bread", "a long walk", "music", "winter", "chess"]
QUESTIONS = [(Message("user", f"Which is better, A: {topic}, or B: anything else? Answer with a letter."),) for topic in TOPICS]
EXAMPLES = tuple(Example(one, "AB"[number % 2], "item", str(number)) for number, one in enumerate(QUESTIONS))
PAIRS = tuple(Pair(one, "AB"[number % 2], "BA"[number % 2], str(number)) for number, one in enumerate(QUESTIONS))
CONTROL = (Question((Message("user", "Is water wet? Answer yes or no."),), ("yes", "no"), 0),)


@pytest.fixture
def stage_of(small_model: Path, tmp_path: Path) -> Callable[..., Stage]:
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    parent = describe(Source("small", str(small_model)), allow_pickle=False, trust_remote_code=False)
    limits = DivergenceConfig(min_reward_margin=None, max_margin_fall=None, max_control_fall=None)

    def make(name: Any, method: StageConfig, folder: str, **fields: Any) -> Stage:
        settings = Settings(method, LoraConfig(), Precision.float32, Optimizer.rmsprop, 0, 10.0, 256, False, False, PromptConfig(), 0)
        data = EXAMPLES if name == "sft" else PAIRS
        stage = Stage(
            "small-word-s0", name, parent, tmp_path / folder, data, CONTROL, settings, limits, 2, False, False, None, 2, on_gpu=False
        )
        return replace(stage, **fields)

    return make


def start(stage: Stage, tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "stage").write_bytes(pickle.dumps(stage))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "stage")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(program: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = program.communicate(timeout=1200)
    assert program.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert not found["failed"], found
    return found


def assert_same_training(one: Stage, other: Stage, tolerance: float) -> None:
    """The logs agree, and the weights differ by no more than `tolerance` of what training has changed, as Euclidean norms."""
    import numpy as np
    import polars as pl
    from safetensors.numpy import load_file

    logs = [pl.read_ipc(stage.folder / "training" / f"{stage.name}.arrow") for stage in (one, other)]
    assert logs[0]["step"].to_list() == logs[1]["step"].to_list()
    for column in ("loss", "learning_rate", "reward_margin"):
        for left, right in zip(logs[0][column].to_list(), logs[1][column].to_list(), strict=True):
            assert left == right or left == pytest.approx(right, abs=2e-3), column
    before, first, second = (load_file(folder / "model.safetensors") for folder in (one.parent.directory, one.checkpoint, other.checkpoint))
    assert first.keys() == second.keys()
    apart = sum(float(np.square((first[name] - second[name]).astype(np.float64)).sum()) for name in first)
    changed = sum(float(np.square((first[name] - before[name].astype(np.float32)).astype(np.float64)).sum()) for name in first)
    assert changed > 0
    assert (apart / changed) ** 0.5 < tolerance


@pytest.mark.parametrize("model", ["two layers", pytest.param("small", marks=pytest.mark.long)])
def test_two_workers_make_of_a_batch_what_one_makes_of_it(
    stage_of: Callable[..., Stage], adapter_family: dict[str, Path], tmp_path: Path, model: str
) -> None:
    from wdct_dist.align.trainer import train
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    method = DpoConfig(epochs=1, learning_rate=1e-5, batch_size=2)
    # without saved states, which are a gigabyte each
    few: dict[str, Any] = {"data": PAIRS[:4], "save_every_steps": 100}
    if model == "two layers":
        source = Source("base", str(adapter_family["base"]))
        few["parent"] = describe(source, allow_pickle=False, trust_remote_code=False)
    together = stage_of("dpo", method, "together", **few)
    found = end(start(together, tmp_path))
    assert found["results"] == {together.title: [2, 0, None]}
    record = json.loads((together.checkpoint / "provenance.json").read_text())
    assert (record["num_workers"], record["identity"]) == (2, together.identity)
    assert sorted(file.name for file in together.folder.iterdir() if not file.name.startswith(".")) == ["dpo", "training"]
    alone = stage_of("dpo", method, "alone", **few)
    train(alone)
    assert_same_training(alone, together, tolerance=1e-3)  # 7e-5 on the processor where this was written


@pytest.mark.long
def test_a_stage_of_which_one_worker_is_killed_goes_on_from_its_last_saved_state(stage_of: Callable[..., Stage], tmp_path: Path) -> None:
    from wdct_dist.align.trainer import train

    method = StageConfig(epochs=4, learning_rate=1e-5, batch_size=4, micro_batch_size=1)
    together = stage_of("sft", method, "together")
    program = start(together, tmp_path)
    deadline = time.monotonic() + 900
    while not list(together.states.glob("checkpoint-*/whole")):
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (victim,) = other_workers(program.pid, together.folder)
    os.kill(victim, signal.SIGKILL)
    found = end(program)
    events = [event for event, _ in found["said"]]
    assert events == ["task given", "task lost", "task given"], found
    num_steps, resumed_at, diverged = found["results"][together.title]
    assert (num_steps, diverged) == (8, None)
    assert resumed_at >= 2
    alone = stage_of("sft", method, "alone")
    train(alone)
    assert_same_training(alone, together, tolerance=1e-3)


@pytest.mark.long
def test_a_training_that_diverges_stops_all_workers_with_the_reason(stage_of: Callable[..., Stage], tmp_path: Path) -> None:
    wild = stage_of("sft", StageConfig(epochs=4, learning_rate=1e30, batch_size=4), "wild")
    found = end(start(wild, tmp_path))
    assert "at step" in found["results"][wild.title][2]
    assert not wild.checkpoint.exists()
    assert (wild.folder / "sft.diverged.json").is_file()


@pytest.mark.long
@pytest.mark.parametrize(("name", "rank"), [("dpo", None), ("sft", 8)])
def test_workers_with_a_part_of_the_model_each_leave_an_ordinary_checkpoint_of_the_same_weights(
    stage_of: Callable[..., Stage], tmp_path: Path, name: str, rank: int | None
) -> None:
    from wdct_dist.align.trainer import train

    method = {"dpo": DpoConfig, "sft": StageConfig}[name](epochs=1, learning_rate=1e-5, batch_size=4)
    stages = [stage_of(name, method, folder) for folder in ("alone", "sharded")]
    alone, sharded = [replace(one, settings=replace(one.settings, lora=LoraConfig(r=rank))) for one in stages]
    sharded = replace(sharded, num_workers=2, num_threads=1)
    (tmp_path / "stage").write_bytes(pickle.dumps(sharded))
    (tmp_path / "sharding.py").write_text(SHARDING)
    command = [sys.executable, str(tmp_path / "sharding.py"), str(tmp_path / "stage")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert ended.returncode == 0, ended.stderr
    parts = {int((sharded.folder / f"parts.{number}").read_text()) for number in (0, 1)}
    assert min(parts) > 30  # each of the thirty layers, and the rest
    train(alone)
    assert_same_training(alone, sharded, tolerance=1e-3)
    assert (sharded.checkpoint / "adapter" / "adapter_config.json").is_file() == (rank is not None)


def other_workers(program: int, folder: Path) -> list[int]:
    """Processes of Ray Train's workers that belong to `program` and do not hold the stage's lock, as the first worker does."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = {program}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    others = []
    for pid in found:
        try:
            if b"RayTrainWorker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            held = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
        if not any(name.startswith(str(folder)) and name.endswith(".lock") for name in held):
            others.append(pid)
    return others


def test_on_gpus_every_worker_has_a_part_of_each_layer(stage_of: Callable[..., Stage], small_model: Path) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig

    from wdct_dist.align.trainer import arguments

    stage = stage_of("sft", StageConfig(batch_size=16, micro_batch_size=2), "gpus", on_gpu=True, num_workers=4)
    given = arguments(stage)
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (2, 2)
    plugin = FullyShardedDataParallelPlugin(**SFTConfig(**{**given, "dataloader_pin_memory": False}).fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.cpu_offload.__class__.__name__) == (2, True, "OffloadPolicy")
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    model = AutoModelForCausalLM.from_pretrained(small_model)
    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [module for module in model.modules() if policy(module)]
    assert {type(module).__name__ for module in wrapped} == {"LlamaDecoderLayer"}
    assert len(wrapped) == model.config.num_hidden_layers
    recomputing = arguments(replace(stage, settings=replace(stage.settings, gradient_checkpointing=True)))
    assert recomputing["fsdp_config"]["activation_checkpointing"] is True
    assert recomputing["gradient_checkpointing"] is False  # transformers refuses both
