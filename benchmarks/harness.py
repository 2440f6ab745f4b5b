"""lm-evaluation-harness on the prompts of a run, as a multiple-choice task or, where the model reasons first, as a task that generates."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from record import gpus
from side_by_side import answers_of, prompts_of

from wdct_dist.tables.run_dir import read_config
from wdct_dist.tables.storage import Store

TASK = """
task: words_and_deeds
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text}}}}"
target_delimiter: ""
"""
CHOICE = """
doc_to_choice: "{{labels}}"
doc_to_target: 0
metric_list: [{metric: acc}]
"""
GENERATION = """
doc_to_target: ""
generation_kwargs: {{until: {until}, max_gen_toks: {tokens}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""

SETTINGS = (
    "pretrained={directory},dtype={dtype},max_model_len=1024,enable_prefix_caching=True,enforce_eager=True,gpu_memory_utilization=0.5"
)
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}
"""In its own process and without a compiler it starts soonest, as the bare engine does. vLLM would reserve 0.92 of the memory, and does not
start where less is free."""

CPU = {"VLLM_TARGET_DEVICE": "cpu"}
"""vLLM knows its CPU build by the version of the distribution `vllm`, which an entry made for lm-evaluation-harness need not have."""

TIMED = Path(__file__).parent / "others" / "lm_eval_timed.py"


@dataclass(frozen=True, slots=True)
class Told:
    """What lm-evaluation-harness made of a run's prompts."""

    command_s: float
    asking_s: float
    """Of it the calls that ask the model."""
    log_odds: dict[str, float]
    """Of option 0 against option 1, by prompt; empty where it generated."""
    texts: dict[str, str]
    """What it generated, by prompt; empty where it chose."""


def harness(python: Path, run: Path, directory: Path, dtype: str, scratch: Path) -> Told:
    """Has `lm_eval` ask one checkpoint. `python` has lm_eval and finds vLLM under this name."""
    prompts = prompts_of(run)
    assert all(len(prompt.messages) == 1 and prompt.messages[0].role == "user" for prompt in prompts)
    reasons = prompts[0].mode == "reason"
    out = scratch / f"lm_eval_{time.monotonic_ns()}"
    out.mkdir()
    data = out / "prompts.jsonl"
    rows = [{"text": prompt.messages[0].content, "labels": list(prompt.labels)} for prompt in prompts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if reasons:
        tokens = read_config(Store(str(run))).sampling.max_new_tokens
        how = GENERATION.format(until=json.dumps(list(prompts[0].stop)), tokens=tokens)
    else:
        how = CHOICE
    task = TASK.format(data=data, kind="generate_until" if reasons else "multiple_choice")
    (out / "words_and_deeds.yaml").write_text(task + how)
    command = [str(python), str(TIMED), str(out / "asking.json"), "run", "--model", "vllm"]
    command += ["--model_args", SETTINGS.format(directory=directory, dtype=dtype)]
    command += ["--tasks", "words_and_deeds", "--include_path", str(out), "--apply_chat_template"]
    command += ["--batch_size", "auto", "--log_samples", "--output_path", str(out / "found")]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT | ({} if gpus() else CPU))
    command_s = time.perf_counter() - began
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    [samples] = out.rglob("samples_*.jsonl")
    log_odds, texts = {}, {}
    for sample in map(json.loads, samples.read_text().splitlines()):
        prompt = prompts[sample["doc_id"]]
        if reasons:
            texts[prompt.prompt_id] = sample["filtered_resps"][0]
        else:
            by_label = [float(response[0]) for response in sample["filtered_resps"]]
            by_option = [by_label[prompt.permutation.index(option)] for option in (0, 1)]
            log_odds[prompt.prompt_id] = by_option[0] - by_option[1]
    return Told(command_s, json.loads((out / "asking.json").read_text())["asking_s"], log_odds, texts)


def decisions_agree(run: Path, checkpoint_id: str, log_odds: Mapping[str, float], clear: float = 0.0) -> float:
    """Share of the prompts on which the run and another engine prefer the same option of the first two.

    Only those count where the run's own log-odds are further than `clear` from even.
    """
    answers = answers_of(run).filter(pl.col("checkpoint_id") == checkpoint_id)
    logprobs = answers["option_logprobs"]
    ours = dict(zip(answers["prompt_id"], logprobs.list.get(0) - logprobs.list.get(1), strict=True))
    assert ours.keys() == log_odds.keys(), "the prompts are not the same"
    counted = [key for key, value in ours.items() if abs(value) > clear]
    return sum((ours[key] > 0) == (log_odds[key] > 0) for key in counted) / len(counted) if counted else 1.0
