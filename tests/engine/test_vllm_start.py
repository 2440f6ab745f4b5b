"""How engines start, fail to start, break and end. Each of these costs an engine's start, so they are few and long."""

from __future__ import annotations

import gc
import json
import os
import pickle
import platform
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.heap import PAGES, ROUNDS, measured_in_a_process
from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.errors import CheckpointError, ConfigError, EngineError

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    # and a vLLM that broke leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def start(small_model, make_checkpoint):
    """Starts an engine for the small model, or for another directory."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from wdct_dist.engine.vllm_engine import start_vllm

    def started(directory=None, prompt=None, **settings):
        settings = {"max_model_len": 256, "cpu_cache_gib": 0.25, **settings}
        checkpoint = make_checkpoint("small", directory=directory or small_model)
        return start_vllm(checkpoint, EngineConfig(**settings), prompt or PromptConfig(), SamplingConfig(), 1)

    yield started
    gc.collect()


@pytest.fixture
def changed_model(small_model, tmp_path):
    """The small model with another value in its config.json, or without a file."""

    def change(without=None, **values):
        for file in small_model.iterdir():
            if file.name not in ("config.json", without):
                (tmp_path / file.name).symlink_to(file)
        config = json.loads((small_model / "config.json").read_text(encoding="utf-8"))
        (tmp_path / "config.json").write_text(json.dumps(config | values), encoding="utf-8")
        return tmp_path

    return change


def children() -> set[int]:
    """Process ids of this process's children."""
    listed = Path("/proc").glob("[0-9]*/stat")
    found = set()
    for stat in listed:
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_an_engine_in_bfloat16_starts_answers_and_leaves_nothing_behind(start, make_prompt):
    threads_before, children_before = set(threading.enumerate()), children()
    engine = start(extra={"max_num_batched_tokens": 777, "hf_overrides": {"head_dtype": "float32"}})
    assert engine.facts.dtype == "bfloat16"
    assert engine.facts.settings["max_num_batched_tokens"] == 777
    with pytest.raises(EngineError, match="already has a vLLM engine"):
        start()
    assert engine.answer([make_prompt()], 0)[0].error is None
    assert gc.isenabled()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.answer([make_prompt()], 0)
    # tqdm keeps a thread of its own for the progress bars of the process
    assert {thread for thread in set(threading.enumerate()) - threads_before if type(thread).__name__ != "TMonitor"} == set()
    assert children() <= children_before


def test_what_nobody_asks_is_counted_without_a_compiler(start, make_prompt):
    import torch
    from torch._dynamo.utils import compile_times
    from vllm.v1.sample import sampler

    compiled_before = compile_times(repr="csv")
    engine = start()
    engine.answer([make_prompt()], 0)
    engine.close()
    assert compile_times(repr="csv") == compiled_before
    assert sampler.batched_count_greater_than(*map(torch.tensor, ([[1.0, 2.0, 3.0]], [[2.0]]))).tolist() == [2]


def test_closing_ends_the_calls_that_still_wait(start, make_prompt):
    engine = start()
    raised = []

    def call():
        try:
            engine.answer([make_prompt(f"{number} " + "word " * 100) for number in range(500)], 0)
        except EngineError as error:
            raised.append(str(error))

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(1.0)
    engine.close()
    caller.join(timeout=300)
    assert raised == ["the engine is closed."]


def test_an_unknown_architecture_is_named(start, changed_model):
    with pytest.raises(EngineError, match=r"the engine for small did not start: .*Nonesuch"):
        start(changed_model(architectures=["NonesuchForCausalLM"], model_type="llama"))


def test_missing_weights_are_named_and_pickle_is_not_loaded(start, changed_model):
    with pytest.raises(EngineError, match=r"did not start: .*(safetensors|weights)"):
        start(changed_model(without="model.safetensors"))


def test_a_length_that_the_checkpoint_does_not_know_is_refused(start):
    with pytest.raises(EngineError, match=r"did not start: .*max_model_len"):
        start(max_model_len=1_000_000)


def test_too_little_memory_comes_with_advice(start):
    with pytest.raises(EngineError, match=r"did not start: .*GiB.*To need less memory: lower engine\.max_model_len") as caught:
        start(cpu_cache_gib=1e6, gpu_memory_utilization=1.0)
    assert "\n" not in str(caught.value)


def test_what_would_change_the_measurement_cannot_be_passed_through(start):
    with pytest.raises(ConfigError, match=r"engine\.extra: logprobs_mode, model cannot be set there"):
        start(extra={"model": "other", "logprobs_mode": "raw_logits", "max_num_seqs": 3})


def test_an_engine_whose_template_does_not_work_is_closed_again(start, changed_model, make_prompt):
    broken = changed_model(without="chat_template.jinja")
    (broken / "chat_template.jinja").write_text("{{ nothing.at.all }}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not work"):
        start(broken)
    engine = start(broken, prompt=PromptConfig(format=PromptFormat.plain))
    response = engine.answer([make_prompt()], 0)[0]
    engine.close()
    assert engine.facts.settings["prompt_format"] == "plain"
    assert response.error is None


def test_an_engine_that_is_not_ready_in_time_has_failed(start):
    with pytest.raises(EngineError, match=r"was not ready after 0\.01 s; allow more with engine\.start_timeout_s"):
        start(start_timeout_s=0.01)
    for thread in threading.enumerate():
        if thread.name == "vllm-engine":
            thread.join(timeout=600)  # it ends by itself when it is ready


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap is tuned")
def test_an_engine_on_a_cpu_keeps_what_it_frees(small_model, make_checkpoint, tmp_path):
    platforms = pytest.importorskip("vllm.platforms", reason="vLLM is not installed")
    if not platforms.current_platform.is_cpu():
        pytest.skip("vLLM is not the CPU's")
    settings = EngineConfig(max_model_len=256, cpu_cache_gib=0.25)
    asked = (make_checkpoint(directory=small_model), settings, PromptConfig(), SamplingConfig(), 1)
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    untouched = measured_in_a_process(HEAP_BESIDE_AN_ENGINE, str(tmp_path / "asked"), MALLOC_TOP_PAD_="131072")
    assert untouched["faults"] > 0.9 * ROUNDS * PAGES  # the user's own tuning stays
    assert measured_in_a_process(HEAP_BESIDE_AN_ENGINE, str(tmp_path / "asked"))["faults"] < 0.1 * PAGES


HEAP_BESIDE_AN_ENGINE = """
import json, pickle, sys
from concurrent.futures import ThreadPoolExecutor
from tests.heap import new_pages
from wdct_dist.engine.vllm_engine import start_vllm

with open(sys.argv[1], "rb") as file:
    engine = start_vllm(*pickle.load(file))
faults = ThreadPoolExecutor(1).submit(new_pages).result()
engine.close()
print(json.dumps({"faults": faults}))
"""


@pytest.mark.long
def test_vllm_in_processes_of_its_own_says_why_it_fails(start, monkeypatch):
    """As on a GPU: what goes wrong in those processes is known to their log alone."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    before = children()
    with pytest.raises(EngineError, match=r"did not start: .*GiB.*To need less memory"):
        start(cpu_cache_gib=1e6, gpu_memory_utilization=1.0)
    assert left_of(before) == set()


def test_vllm_in_processes_of_its_own_that_are_killed_says_so_and_leaves_none(start, make_prompt, monkeypatch):
    """As on a GPU."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    before = children()
    engine = start(dtype=Dtype.float32)
    assert engine.answer([make_prompt()], 0)[0].error is None
    for child in children() - before:
        if "VLLM" in Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8"):
            os.kill(child, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(EngineError, match="the engine broke"):
            engine.answer([make_prompt(f"{number}") for number in range(50)], 0)
    engine.close()
    assert left_of(before) == set()


def left_of(before: set[int]) -> set[int]:
    """Children beside those `before` that do not end within 2 minutes, but for Python's own."""
    deadline = time.monotonic() + 120
    while (left := {child for child in children() - before if not is_python_s_own(child)}) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def is_python_s_own(process: int) -> bool:
    try:
        return "resource_tracker" in Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return True
