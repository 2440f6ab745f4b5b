"""The endpoint engine against a real `vllm serve` of the small model: the same answers as vLLM in this process."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import distributions, version
from pathlib import Path

import polars as pl
import pytest

from wdct_dist.checkpoints.sources import endpoint_checkpoint
from wdct_dist.cli.main import main
from wdct_dist.config.schema import (
    Config,
    DataConfig,
    Dtype,
    EndpointApi,
    EndpointConfig,
    EngineConfig,
    PromptConfig,
    PromptFormat,
    SamplingConfig,
)
from wdct_dist.engine.endpoint_engine import EndpointEngine
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

TOLERANCE = 0.01
"""Log-odds in float32. The server shows its 20 most probable tokens, which leave out a label's rarest spelling now and then: at most 0.002
apart where both spellings were shown, up to 0.004 elsewhere."""

TOP = 20


@pytest.fixture(scope="module")
def served(small_model, tmp_path_factory):
    """The base address of a server; one for the module, since it takes half a minute to start."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    # bound, and never listened to, for as long as the server is to have the port: nobody else is given it meanwhile, and whoever sets
    # SO_REUSEADDR, as servers do, may listen there
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(small_model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "small", "--dtype", "float32", "--max-model-len", "640", "--enforce-eager"]
    command += ["--max-logprobs", str(TOP), "--disable-log-stats"]
    folder = tmp_path_factory.mktemp("served")
    log = folder / "log"
    if "vllm" not in {found.name for found in distributions()}:
        # the command looks for a distribution named `vllm`, and for the platform in its version; the CPU build is named `vllm-cpu`
        (folder / "vllm-0.dist-info").mkdir()
        (folder / "vllm-0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n")
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()
            held.close()


@pytest.fixture
def engine(served):
    """Starts engines at the server."""
    running = []

    def start(sampling=None, prompt=None, **settings):
        config = EndpointConfig(**{"base_url": served, "api_key_env": None, "top_logprobs": TOP, **settings})
        checkpoint = endpoint_checkpoint("small", "small", None, served)
        running.append(EndpointEngine(checkpoint, config, prompt or PromptConfig(), sampling or SamplingConfig(), {}))
        return running[-1]

    yield start
    for one in running:
        one.close()


def odds(logprobs):
    """Log-odds of every other option against the first."""
    return [value - logprobs[0] for value in logprobs[1:]]


def test_cs_and_log_odds_are_those_of_the_engine_in_this_process(served, small_model, tmp_path):
    common = ["data.limit=24", "prompt.reply_tokens=1", "dispatch.executor=local", "metrics.bootstrap_resamples=0"]
    endpoint = ["engine.kind=endpoint", f"engine.endpoint.base_url={served}", "engine.endpoint.api_key_env=null"]
    vllm = ["engine.kind=vllm", "engine.dtype=float32", "engine.max_model_len=640", "engine.cpu_cache_gib=0.5"]
    (tmp_path / "c.yaml").write_text("variants: [direct]\n")
    for name, settings in (
        ("here", [*vllm, f"checkpoints=[{{path: {small_model}, id: small}}]"]),
        ("there", [*endpoint, "checkpoints=[small]"]),
    ):
        assert main(["evaluate", str(tmp_path / "c.yaml"), f"run_dir={tmp_path / name}", *common, *settings]) == 0

    here, there = (pl.scan_ipc(str(tmp_path / name / "answers" / "*.arrow")).collect().sort("prompt_id") for name in ("here", "there"))
    assert here["prompt_id"].equals(there["prompt_id"])
    known = [(ours, theirs) for ours, theirs in zip(here["option_logprobs"], there["option_logprobs"], strict=True) if theirs is not None]
    assert len(known) > 0.95 * here.height
    for ours, theirs in known:
        assert odds(theirs.to_list()) == pytest.approx(odds(ours.to_list()), abs=TOLERANCE)
    assert there["num_prompt_tokens"].equals(here["num_prompt_tokens"])

    def cs(name: str) -> dict[tuple[str, str], float]:
        summary = pl.read_ipc(tmp_path / name / "scores" / "summary.arrow")
        chosen = summary.filter(pl.col("metric").is_in(["cs", "cs_debiased"])).select("domain", "metric", "value")
        return {(domain, metric): value for domain, metric, value in chosen.iter_rows()}

    assert cs("there") == pytest.approx(cs("here"), abs=1e-9)


def test_where_few_tokens_are_shown_the_bounds_hold(engine):
    config = Config(data=DataConfig(limit=3))
    prompts = list(build_prompts(select_items(config.data), config))
    whole = engine().answer(prompts, 0)
    narrow = engine(top_logprobs=1).answer(prompts, 0)
    known = [(one, other) for one, other in zip(narrow, whole, strict=True) if other.option_logprobs is not None]
    assert known
    for one, other in known:
        assert one.option_logprobs is None
        for lower, upper, true in zip(one.option_lower, one.option_upper, other.option_logprobs, strict=True):
            assert (-math.inf if lower is None else lower) - TOLERANCE <= true <= upper + TOLERANCE


def test_reasoning_and_conversations_are_those_of_the_engine_in_this_process(engine, small_model):
    from wdct_dist.checkpoints.types import Checkpoint
    from wdct_dist.engine.vllm_engine import start_vllm

    sampling = SamplingConfig(max_new_tokens=24)
    config = Config(data=DataConfig(limit=2), variants=["cot", "joint"], prompt=PromptConfig(reply_tokens=1))
    prompts = list(build_prompts(select_items(config.data), config))
    checkpoint = Checkpoint("small", "d" * 64, small_model, "", "LlamaForCausalLM", "s", 0, "bfloat16", 8192, True, "directory")
    settings = EngineConfig(dtype=Dtype.float32, max_model_len=640, cpu_cache_gib=0.5)
    inside = start_vllm(checkpoint, settings, config.prompt, sampling, 1)
    try:
        here = inside.answer(prompts, 0)
    finally:
        inside.close()
    there = engine(sampling, continue_reply=True).answer(prompts, 0)
    assert [response.error for response in there] == [None] * len(prompts)
    assert [response.said for response in there] == [response.said for response in here]
    # greedy text of 24 tokens may part where two tokens are equally probable
    same = [(ours, theirs) for ours, theirs in zip(here, there, strict=True) if ours.reasoning == theirs.reasoning]
    assert len(same) >= 0.9 * len(prompts)
    known = [(ours, theirs) for ours, theirs in same if theirs.option_logprobs is not None]
    assert len(known) > 0.8 * len(same)
    for ours, theirs in known:
        assert odds(theirs.option_logprobs) == pytest.approx(odds(ours.option_logprobs), abs=TOLERANCE)


def test_in_plain_text_the_log_odds_are_those_of_a_float32_forward_pass(engine, small_model, reference):
    from transformers import AutoTokenizer

    from wdct_dist.engine.render import Renderer

    config = Config(data=DataConfig(limit=3), prompt=PromptConfig(format=PromptFormat.plain))
    prompts = list(build_prompts(select_items(config.data), config))
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    responses = engine(prompt=config.prompt, api=EndpointApi.completions).answer(prompts, 0)
    assert any(response.option_logprobs is not None for response in responses)
    for prompt, rendered, response in zip(
        prompts, Renderer(tokenizer, PromptFormat.plain, config.prompt).render(prompts), responses, strict=True
    ):
        if response.option_logprobs is None:
            continue
        logprobs = reference(rendered.token_ids)
        tokens = [tokenizer.convert_tokens_to_ids([label, f"Ġ{label}"]) for label in prompt.labels]
        by_label = [math.log(sum(math.exp(logprobs[token]) for token in both)) for both in tokens]
        by_option = [by_label[prompt.permutation.index(option)] for option in range(len(by_label))]
        assert odds(response.option_logprobs) == pytest.approx(odds(by_option), abs=TOLERANCE)


def test_a_prompt_that_is_too_long_for_the_server_is_an_error_in_its_words(engine, make_prompt):
    error, after = engine().answer([make_prompt("word " * 700, prompt_id="long"), make_prompt("A or B?", prompt_id="short")], 0)
    assert "status 400" in error.error
    assert "640" in error.error
    assert after.error is None


def test_more_logprobs_than_the_server_gives_are_refused_at_the_start(served):
    from wdct_dist.errors import CheckpointError

    config = EndpointConfig(base_url=served, api_key_env=None, top_logprobs=TOP + 1)
    with pytest.raises(CheckpointError, match=r"status 400: .*engine\.endpoint: top_logprobs \(21 asked for\)"):
        EndpointEngine(endpoint_checkpoint("small", "small", None, served), config, PromptConfig(), SamplingConfig(), {})
