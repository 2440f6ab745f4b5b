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
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from record import arguments, figure, write
from side_by_side import SMALL_MODEL, bare_llm, evaluate, in_own_process, log_odds_apart, prompts_of

CONFIG = """
data: {{path: {data}, limit: {items}}}
checkpoints: [{model}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 2048}}
dispatch: {{shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 100}}
"""


def bare(run: Path) -> None:
    """Scores the run's prompts with a bare engine; prints prompts a second and the log-odds. Runs in its own process.

    Rendering and reading of the labels are its own, not the product's.
    """
    llm = bare_llm(run, prefix_caching=True)
    from vllm import SamplingParams

    tokenizer = llm.get_tokenizer()
    prompts = prompts_of(run)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in prompt.messages], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    token_ids = [{"prompt_token_ids": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    labels = sorted({ids[0] for label in "ABCD" for text in (label, f" {label}") if len(ids := tokenizer.encode(text)) == 1})
    params = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=labels, detokenize=False)
    began = time.perf_counter()
    outputs = llm.generate(token_ids, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    cached = sum(output.num_cached_tokens for output in outputs) / sum(len(output.prompt_token_ids) for output in outputs)
    log_odds = {}
    for prompt, output in zip(prompts, outputs, strict=True):
        read = {token: logprob.logprob for token, logprob in output.outputs[0].logprobs[0].items()}
        by_label = [
            sum(math.exp(read[ids[0]]) for text in (label, f" {label}") if len(ids := tokenizer.encode(text)) == 1)
            for label in prompt.labels
        ]
        by_option = [by_label[prompt.permutation.index(option)] for option in range(len(by_label))]
        log_odds[prompt.prompt_id] = math.log(by_option[0] / by_option[1])
    print(json.dumps({"prompts_per_s": len(prompts) / seconds, "seconds": seconds, "cached_share": cached, "log_odds": log_odds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.bare:
        bare(options.bare)
        return
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.repeats):
            run = Path(scratch) / f"run{number}"
            ours = evaluate(run, CONFIG.format(model=SMALL_MODEL, **vars(options)))
            theirs = in_own_process("--bare", str(run))
            apart = log_odds_apart(run, theirs.pop("log_odds"))
            assert apart < 0.01 or options.dtype != "float32", f"the answers are not the same: log-odds up to {apart} apart"
            ratio = ours.prompts_per_s / theirs["prompts_per_s"]
            pairs.append({"wdct": asdict(ours), "bare": theirs, "ratio": ratio, "log_odds_apart": apart})
            print(json.dumps(pairs[-1]), flush=True)
    write(options, "end-to-end", [figure("wdct / bare, prompts a second", [pair["ratio"] for pair in pairs])], pairs)


if __name__ == "__main__":
    main()
