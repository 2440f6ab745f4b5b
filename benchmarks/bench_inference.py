"""The inference core: `wdct evaluate` against what people would use instead, against the engine alone, and against the machine.

    .venv/bin/python benchmarks/bench_inference.py [--asked direct rotations cot] [--against bare bare-shared generate lm-eval ray-data]
        [--items 100] [--cot-items 25] [--repeats 5] [--repeats-of NAME=N …] [--minutes M] [--dtype bfloat16] [--data wdct]
        [--lm-eval PYTHON] [--ray-data PYTHON] [--json]

Asked: `direct`, every question in one order of its options, one prefill; `rotations`, in every order; `cot`, the model reasons first (at
most 64 tokens), in one order. Against:

    bare         `vllm.LLM.generate`, one token with the label logprobs, vLLM's own size of cache blocks: the ceiling
    bare-shared  the same with the block size of our engine, so that prompts share what they can
    generate     the loop of the paper's code: transformers `generate`, left padding, batches of 32, 10 new tokens; cot: behind reasoning
    lm-eval      lm-evaluation-harness with its vLLM backend on a multiple-choice task; cot: it generates the reasoning, and no more
    ray-data     `ray.data.llm` with one token and label logprobs; cot: the reasoning, and no more

Each is a process of its own, with the same prompts, model and precision (the same token ids too, but lm-eval renders itself). A B C … A B
C …; the figures are of each round: ours / theirs in prompts a second, from a ready engine to the last answer (ours: on disk), and theirs
/ ours in seconds of the whole command, start included, where it is one that a user would give. Answers are compared before a ratio counts:
on prompts where ours are clear, all must prefer the same option; reasoning is compared as text and only said. lm-eval and ray-data are
left out where no Python that has them is named.

Beside them: prompts and tokens a second, seconds from the command to the first shard, the share of the prompt tokens from the cache, the
engine's idle share, and the roofline (`roofline.py`): MFU, and the least time over the time taken.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import CPU, decisions_agree, harness
from record import Figure, arguments, figure, gpus, write
from roofline import measure_apart
from side_by_side import (
    SMALL_MODEL,
    Evaluated,
    Phase,
    answers_of,
    ask_in_phases,
    bare_llm,
    directory_of,
    engine_facts,
    evaluate,
    in_own_process,
    in_phases,
    log_odds_of,
    needs_of,
    prompts_of,
    steps_of,
    write_sample,
)

from wdct_dist.engine.steps import Generated, Generation

CONFIG = """
data: {{path: {sample}}}
checkpoints: [{model}]
orders: {orders}
variants: [{variant}]
sampling: {{max_new_tokens: 64}}
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024}}
metrics: {{bootstrap_resamples: 100}}
"""
ASKED = {
    "direct": {"orders": "as_given", "variant": "direct"},
    "rotations": {"orders": "rotations", "variant": "direct"},
    "cot": {"orders": "as_given", "variant": "cot"},
}
AGAINST = ("bare", "bare-shared", "generate", "lm-eval", "ray-data")
TARGETS = {
    ("direct", "bare"): 0.97,
    ("direct", "generate"): 2.2,
    ("direct", "lm-eval"): 2.5,
    ("direct", "ray-data"): 1.0,
    ("rotations", "bare"): 1.5,
    ("rotations", "generate"): 3.5,
    ("rotations", "lm-eval"): 4.0,
    ("rotations", "ray-data"): 1.0,
}
COMMANDS = ("lm-eval", "ray-data")
"""Whose seconds from start to end are a user's."""

CLEAR = {"float32": 0.01, "bfloat16": 0.75}
"""Log-odds from which on a decision must be the same everywhere. With bfloat16 they are up to 0.3 from the exact ones."""

PAPER_BATCH, PAPER_TOKENS = 32, 10
SMALLEST_CPU_BLOCK = 32
"""Of vLLM as it comes."""

RAY_DATA = Path(__file__).parent / "others" / "ray_data_llm.py"


def bare(run: Path, *, own_blocks: bool) -> dict[str, Any]:
    """A bare engine. Runs in its own process."""
    phases, responses = ask_in_phases(run, bare_llm(run, prefix_caching=True, own_blocks=own_blocks))
    texts = {response.prompt_id: response.reasoning for response in responses if response.reasoning is not None}
    return {"phases": [asdict(phase) for phase in phases], "log_odds": log_odds_of(responses), "texts": texts}


def paper_loop(run: Path) -> dict[str, Any]:
    """The loop of the paper's code, in this process. Token ids are those of the run; only the loop is in the seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = engine_facts(run)
    directory = directory_of(run)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, facts["dtype"])).eval()
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())

    def batch_of(asked: Sequence[Generation]) -> list[Generated]:
        longest = max(len(one.token_ids) for one in asked)
        ids = torch.tensor([[0] * (longest - len(one.token_ids)) + list(one.token_ids) for one in asked])
        mask = torch.tensor([[0] * (longest - len(one.token_ids)) + [1] * len(one.token_ids) for one in asked])
        reads = bool(asked[0].read)
        stop = list(asked[0].stop)
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=PAPER_TOKENS if reads else asked[0].max_tokens,
            do_sample=False,
            pad_token_id=min(ends),
            return_dict_in_generate=True,
            output_logits=reads,
            **({"stop_strings": stop, "tokenizer": tokenizer} if stop else {}),
        )
        first = torch.log_softmax(found.logits[0].float(), dim=-1) if reads else None
        return [
            generated(
                one, found.sequences[row, longest:].tolist(), {token: first[row, token].item() for token in one.read} if reads else {}
            )
            for row, one in enumerate(asked)
        ]

    def generated(one: Generation, token_ids: list[int], logprobs: dict[int, float]) -> Generated:
        """Up to the end token or the stop string."""
        for place, token in enumerate(token_ids):
            said = tokenizer.decode(token_ids[: place + 1]) if one.stop else ""
            stop = next((string for string in one.stop if string in said), None)
            if stop is not None or token in ends:
                return Generated(tuple(token_ids[: place + 1]), logprobs, "stop", stop, 0)
        return Generated(tuple(token_ids), logprobs, "length", None, 0)

    def generate(asked: list[Generation]) -> tuple[Phase, list[Generated]]:
        began = time.perf_counter()
        found = [one for start in range(0, len(asked), PAPER_BATCH) for one in batch_of(asked[start : start + PAPER_BATCH])]
        seconds = time.perf_counter() - began
        return Phase(seconds, sum(len(one.token_ids) for one in asked), 0, sum(len(one.token_ids) for one in found)), found

    steps = steps_of(run, tokenizer, model.config.vocab_size, facts["max_model_len"])
    with torch.inference_mode():
        model.generate(input_ids=torch.tensor([[1, 2, 3]]), max_new_tokens=2, do_sample=False, pad_token_id=min(ends))
        phases, responses = in_phases(steps, generate)
    texts = {response.prompt_id: response.reasoning for response in responses if response.reasoning is not None}
    return {"phases": [asdict(phase) for phase in phases], "log_odds": log_odds_of(responses), "texts": texts}


def ray_data(run: Path, python: Path) -> dict[str, Any]:
    """`ray.data.llm` in a process of its own; of prompts that reason, the reasoning alone."""
    from transformers import AutoConfig, AutoTokenizer

    facts, directory = engine_facts(run), directory_of(run)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    steps = steps_of(run, tokenizer, AutoConfig.from_pretrained(directory).vocab_size, facts["max_model_len"])
    asked = [next(one) for one in steps]
    assert all(len(several) == 1 for several in asked), "labels of several tokens"
    requests = [
        {"token_ids": list(one.token_ids), "max_tokens": one.max_tokens, "stop": list(one.stop), "read": list(one.read)} for [one] in asked
    ]
    settings = {name: facts["settings"][name] for name in ("enforce_eager", "max_num_seqs", "max_num_batched_tokens", "block_size")}
    if not gpus():
        settings["block_size"] = max(settings["block_size"], SMALLEST_CPU_BLOCK)
    engine = {**settings, "dtype": facts["dtype"], "max_model_len": facts["max_model_len"], "disable_log_stats": True}
    # "uni": else vLLM would have Ray place its workers; a share of the memory that other processes leave free
    engine |= {"enable_prefix_caching": True, "gpu_memory_utilization": 0.5}
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "requests.json", Path(folder) / "answers.json"
        given.write_text(json.dumps({"model": str(directory), "engine": engine, "cpus": os.cpu_count(), "requests": requests}))
        began = time.perf_counter()
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {} if gpus() else CPU
        done = subprocess.run([str(python), str(RAY_DATA), str(given), str(taken)], capture_output=True, text=True, env=environment)
        command_s = time.perf_counter() - began
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(taken.read_text())
    log_odds, texts = {}, {}
    for [one], answer, step, prompt in zip(asked, found["answers"], steps, prompts_of(run), strict=True):
        logprobs = {int(token): value for token, value in answer["logprobs"].items()}
        if one.read:
            try:
                step.send([Generated(tuple(answer["token_ids"]), logprobs, "length", None, None)])
            except StopIteration as end:
                log_odds |= log_odds_of([end.value])
        else:
            said = tokenizer.decode(answer["token_ids"], skip_special_tokens=True)
            # what was generated holds the stop string, ours ends before it
            texts[prompt.prompt_id] = said[: min((said.find(stop) for stop in one.stop if stop in said), default=len(said))]
    num_output = sum(len(answer["token_ids"]) for answer in found["answers"])
    phase = Phase(found["asking_s"], sum(len(one.token_ids) for [one] in asked), 0, num_output)
    return {"phases": [asdict(phase)], "log_odds": log_odds, "texts": texts, "command_s": command_s}


def lm_eval(run: Path, python: Path, dtype: str, scratch: Path) -> dict[str, Any]:
    """lm-evaluation-harness in a process of its own."""
    told = harness(python, run, directory_of(run), dtype, scratch)
    phase = {"seconds": told.asking_s}
    return {"phases": [phase], "log_odds": told.log_odds, "texts": told.texts, "command_s": told.command_s}


def round_of(asked: str, run: Path, against: Sequence[str], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One round: ours, then each of the others, over the same prompts."""
    sample = scratch / f"{asked}.jsonl"
    write_sample(sample, options.data, options.cot_items if asked == "cot" else options.items)
    ours = evaluate(run, CONFIG.format(sample=sample, model=options.model, dtype=options.dtype, **ASKED[asked]))
    found: dict[str, Any] = {
        "asked": asked,
        "wdct": {**asdict(ours), "prompts_per_s": ours.prompts_per_s, "tokens_per_s": ours.tokens_per_s},
    }
    found["roofline"] = roofline(run, ours, options)
    for name in against:
        if name == "lm-eval":
            theirs = lm_eval(run, options.lm_eval, options.dtype, scratch)
        else:
            theirs = in_own_process("--child", name, str(run), *(["--ray-data", str(options.ray_data)] if name == "ray-data" else []))
        found[name] = compared(ours, run, theirs, name, CLEAR[options.dtype])
    print(json.dumps(found), flush=True)
    return found


def compared(ours: Evaluated, run: Path, theirs: dict[str, Any], name: str, clear: float) -> dict[str, Any]:
    """Ratios to one of the others, after its answers were held against ours."""
    seconds = sum(phase["seconds"] for phase in theirs["phases"])
    figures: dict[str, Any] = {"seconds": seconds, "prompts_per_s": ours.num_prompts / seconds, "phases": theirs["phases"]}
    figures["ratio"] = ours.prompts_per_s / figures["prompts_per_s"]
    if "command_s" in theirs:
        figures |= {"command_s": theirs["command_s"], "command_ratio": theirs["command_s"] / ours.command_s}
    said = answers_of(run)
    if theirs["texts"]:
        texts = dict(zip(said["prompt_id"], said["reasoning"], strict=True))
        same = [texts[key].strip() == text.strip() for key, text in theirs["texts"].items()]
        figures["same_text_share"] = sum(same) / len(same)
    if theirs["log_odds"]:
        [checkpoint_id] = said["checkpoint_id"].unique()
        figures["agreeing"] = decisions_agree(run, checkpoint_id, theirs["log_odds"])
        figures["agreeing_where_clear"] = decisions_agree(run, checkpoint_id, theirs["log_odds"], clear)
        # other reasoning, other answers
        assert theirs["texts"] or figures["agreeing_where_clear"] == 1.0, f"{name} answers otherwise, and is not compared: {figures}"
    return figures


def roofline(run: Path, ours: Evaluated, options: argparse.Namespace) -> dict[str, float]:
    """What the run's prompts need, against what the machine does; the first call measures it."""
    if options.machine is None:
        options.machine = measure_apart(options.dtype)
    needs = needs_of(run, answers_of(run))
    rate, bandwidth = options.machine["matrix_flops_per_s"], options.machine["bytes_per_s"]
    return {
        "flops": needs.flops,
        "bytes": needs.bytes,
        "least_s": needs.least_s(rate, bandwidth),
        "mfu": needs.flops / rate / ours.seconds,
        "of_roofline": needs.least_s(rate, bandwidth) / ours.seconds,
    }


def figures_of(asked: str, rounds: Sequence[dict[str, Any]], against: Sequence[str]) -> list[Figure]:
    """The lines of one way of asking."""
    ours = [one["wdct"] for one in rounds]
    lines = [
        figure(f"{asked}: prompts a second", [one["prompts_per_s"] for one in ours], "/s"),
        figure(f"{asked}: tokens a second", [one["tokens_per_s"] for one in ours], "/s"),
        figure(f"{asked}: command to first shard", [one["first_shard_s"] for one in ours], "s"),
        figure(f"{asked}: prompt tokens from the cache", [one["num_cached_tokens"] / one["num_prompt_tokens"] for one in ours]),
        figure(f"{asked}: engine idle share", [one["idle_share"] for one in ours]),
        figure(f"{asked}: MFU", [one["roofline"]["mfu"] for one in rounds]),
        figure(f"{asked}: least time of the roofline / time", [one["roofline"]["of_roofline"] for one in rounds]),
    ]
    for name in against:
        theirs = [one[name] for one in rounds if name in one]
        if not theirs:
            continue
        target = TARGETS.get((asked, name))
        meant = "" if target is None else f"≥ {target:g}"
        lines.append(figure(f"{asked}: wdct / {name}, prompts a second", [one["ratio"] for one in theirs], target=meant))
        lines.append(figure(f"{asked}: {name}, prompts a second", [one["prompts_per_s"] for one in theirs], "/s"))
        if name in COMMANDS:
            lines.append(figure(f"{asked}: {name} / wdct, seconds of the whole command", [one["command_ratio"] for one in theirs]))
        for measure_name, what in (("agreeing", "the same option preferred"), ("same_text_share", "the same reasoning")):
            if measure_name in theirs[0]:
                lines.append(figure(f"{asked}: {name}, {what}, share of the prompts", [one[measure_name] for one in theirs]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asked", nargs="+", choices=list(ASKED), default=list(ASKED))
    parser.add_argument("--against", nargs="+", choices=AGAINST, help="default: all that are there")
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--model", default=SMALL_MODEL, help="an entry of `checkpoints`")
    parser.add_argument("--items", type=int, default=100, help="each gives two prompts in one order, four in both")
    parser.add_argument("--cot-items", type=int, default=25, help="the same where the model reasons")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--repeats-of", nargs="+", default=[], metavar="NAME=N", help="fewer rounds for some of the others: lm-eval=2")
    parser.add_argument("--minutes", type=float, help="no round begins that would not be over by then")
    parser.add_argument("--dtype", choices=list(CLEAR), default="bfloat16")
    parser.add_argument("--lm-eval", type=Path, help="a Python that has lm_eval and vLLM")
    parser.add_argument("--ray-data", type=Path, help="a Python that has ray[data], pandas and vLLM")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.child:
        name, run = options.child[0], Path(options.child[1])
        found = (
            ray_data(run, options.ray_data)
            if name == "ray-data"
            else paper_loop(run)
            if name == "generate"
            else bare(run, own_blocks=name == "bare")
        )
        print(json.dumps(found))
        return
    there = [name for name in AGAINST if (name != "lm-eval" or options.lm_eval) and (name != "ray-data" or options.ray_data)]
    options.against = options.against or there
    if missing := set(options.against) - set(there):
        sys.exit(f"{', '.join(sorted(missing))}: name a Python that has it, with --{min(missing)}")
    options.machine = None
    fewer = dict(one.split("=") for one in options.repeats_of)
    rounds: dict[str, list[dict[str, Any]]] = {asked: [] for asked in options.asked}
    began, longest_s = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for number, asked in itertools.product(range(options.repeats), options.asked):
            round_began = time.perf_counter()
            if round_began - began + longest_s > 60 * (options.minutes or math.inf):
                print(f"round {number} of {asked} and what follows is left out: the time is over", file=sys.stderr)
                break
            against = [name for name in options.against if number < int(fewer.get(name, options.repeats))]
            rounds[asked].append(round_of(asked, scratch / f"{asked}{number}", against, options, scratch))
            longest_s = max(longest_s, time.perf_counter() - round_began)
    machine, options.machine = options.machine, None
    figures = [figure("matrix rate of the machine", machine["matrix_flops_per_s"] / 1e12, "TFLOP/s")]
    figures.append(figure("memory bandwidth, read and written", machine["bytes_per_s"] / 1e9, "GB/s"))
    for asked in filter(rounds.get, options.asked):
        figures += figures_of(asked, rounds[asked], options.against)
    write(options, "-".join(["inference", *options.asked]), figures, {"machine": machine, "rounds": rounds})


if __name__ == "__main__":
    main()
