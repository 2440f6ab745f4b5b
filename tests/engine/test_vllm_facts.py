"""The facts of an engine, from vLLM's real configuration of one that is not started. Those of a running one are in test_vllm_engine.py."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.engine.vllm_facts import facts_of

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def config(small_model: Path) -> Any:
    """Of the small model in bfloat16; nothing but its config.json is read."""
    from vllm.engine.arg_utils import EngineArgs

    arguments = {"dtype": "bfloat16", "max_model_len": 256, "max_num_seqs": 3, "seed": 11, "kv_cache_memory_bytes": 2**29}
    return EngineArgs(model=str(small_model), enforce_eager=True, load_format="safetensors", **arguments).create_engine_config()


def test_every_setting_that_can_change_an_answer_is_stated_as_it_is(config: Any) -> None:
    facts = facts_of(config, "chat", deterministic=False)
    assert (facts.kind, facts.dtype, facts.max_model_len) == ("vllm", "bfloat16", 256)
    stated = {
        "prompt_format": "chat",
        "logits_dtype": "bfloat16",
        "max_num_seqs": 3,
        "enforce_eager": True,
        "seed": 11,
        "load_format": "safetensors",
        "quantization": None,
        "batch_invariant": False,
    }
    assert {name: facts.settings[name] for name in stated} == stated
    assert set(facts.versions) == {"vllm", "torch", "transformers"}


def test_a_driver_reads_facts_without_importing_what_an_engine_runs_on(config: Any) -> None:
    """Unpickling a version object of torch imported torch: 1.2 s between an engine that is ready and its first unit."""
    program = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*{'torch', 'vllm', 'transformers'} & sys.modules.keys())"
    facts = pickle.dumps(facts_of(config, "chat", deterministic=False))
    assert subprocess.run([sys.executable, "-c", program], input=facts, capture_output=True, check=True).stdout.split() == []


def test_the_memory_is_stated_in_the_setting_that_gives_it(config: Any) -> None:
    from vllm.platforms import current_platform

    settings = facts_of(config, "chat", deterministic=False).settings
    if current_platform.is_cpu():
        assert settings["cpu_cache_gib"] == 0.5
        assert "gpu_memory_utilization" not in settings
    else:
        assert settings["gpu_memory_utilization"] == config.cache_config.gpu_memory_utilization
        assert "cpu_cache_gib" not in settings


def test_logits_on_a_coarse_grid_are_noted(config: Any) -> None:
    assert any("logits are bfloat16" in note for note in facts_of(config, "chat", deterministic=False).notes)


def test_a_batch_invariance_that_was_asked_for_and_is_not_there_is_noted(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)

    def notes(deterministic: bool) -> list[str]:
        return [note for note in facts_of(config, "chat", deterministic).notes if "engine.deterministic has no effect" in note]

    assert notes(deterministic=False) == []
    assert len(notes(deterministic=True)) == 1


def test_an_engine_in_the_process_of_its_driver_is_noted(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    assert "vLLM runs in the engine's own process" not in facts_of(config, "chat", deterministic=False).notes
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    assert "vLLM runs in the engine's own process" in facts_of(config, "chat", deterministic=False).notes
