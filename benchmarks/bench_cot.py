"""cot: reasoning and scoring in one engine, against a bare `vllm.LLM.generate` of the same reasoning, side by side.

    .venv/bin/python benchmarks/bench_cot.py [--items 50] [--repeats 5] [--tokens 64] [--shots 0] [--cache-gib 2]
                                             [--dtype float32] [--data wdct]

A is `wdct evaluate` on Ray with `variants: [cot]`: from the moment that its engine is ready to its last shard on disk; reasoning and
scoring of different prompts overlap. B is a bare engine with the same settings and token ids: first the reasoning of all prompts, one
call of `generate`, then the scoring of all prompts behind it, another call. A B A B …, and of each pair:

    decoding    reasoning tokens a second, A / B's first call: A's time holds its scoring, the driver and the disk, B's does not
    same work   reasoning tokens a second, A / both calls of B
    scoring     time of B's second call / its first: what the second prefill costs in the engine by itself
    overhead    A's time for everything / B's first call, for as many reasoning tokens, less 1: what scoring and all else cost at most

The texts of both are compared first; where they are the same, so must the log-odds be (float32).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from record import arguments, figure, write
from side_by_side import (
    SMALL_MODEL,
    answers_of,
    ask_in_phases,
    bare_llm,
    evaluate,
    in_own_process,
    log_odds_apart,
    log_odds_of,
    write_sample,
)

CONFIG = """
data: {{path: {sample}}}
checkpoints: [{model}]
variants: [cot]
cot: {{shots: {shots}}}
sampling: {{max_new_tokens: {tokens}}}
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 2048, cpu_cache_gib: {cache_gib}}}
metrics: {{bootstrap_resamples: 100}}
"""


def bare(run: Path) -> None:
    """Reasons and scores with a bare engine; prints both phases and what came of them. Runs in its own process."""
    phases, responses = ask_in_phases(run, bare_llm(run, prefix_caching=True))
    assert len(phases) == 2, f"{len(phases)} phases, where reasoning and scoring were meant"
    result = {
        "reasoning": asdict(phases[0]),
        "scoring": asdict(phases[1]),
        "texts": {response.prompt_id: response.reasoning for response in responses},
        "log_odds": log_odds_of(responses),
    }
    print(json.dumps(result))


def compare(run: Path, sample: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One pair."""
    config = CONFIG.format(model=SMALL_MODEL, sample=sample, **vars(options))
    ours = evaluate(run, config)
    theirs = in_own_process("--bare", str(run))
    texts, log_odds = theirs.pop("texts"), theirs.pop("log_odds")
    answers = answers_of(run)
    said = dict(zip(answers["prompt_id"], answers["reasoning"], strict=True))
    assert said.keys() == texts.keys(), "the prompts are not the same"
    same = {prompt_id for prompt_id, text in texts.items() if said[prompt_id] == text}
    apart = log_odds_apart(run, log_odds, same.__contains__)
    assert apart < 0.01 or options.dtype != "float32", f"the answers are not the same: log-odds up to {apart} apart"
    num_tokens = ours.num_output_tokens - ours.num_prompts  # one token a prompt comes from scoring
    reasoning, scoring = theirs["reasoning"], theirs["scoring"]
    ours_per_s, bare_per_s = num_tokens / ours.seconds, reasoning["num_output_tokens"] / reasoning["seconds"]
    return {
        "decoding": ours_per_s / bare_per_s,
        "same_work": ours_per_s / (reasoning["num_output_tokens"] / (reasoning["seconds"] + scoring["seconds"])),
        "scoring": scoring["seconds"] / reasoning["seconds"],
        "overhead": bare_per_s / ours_per_s - 1,
        "reasoning_tokens_per_s": {"wdct": ours_per_s, "bare": bare_per_s},
        "same_text_share": len(same) / len(texts),
        "log_odds_apart": apart,
        "wdct": asdict(ours),
        "bare": theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--items", type=int, default=50, help="each gives four prompts: two sides, two orders")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="limit of the reasoning")
    parser.add_argument("--shots", type=int, default=0, help="demonstrations of reasoning in each prompt (0: zero-shot)")
    parser.add_argument(
        "--cache-gib", type=float, default=2.0, help="where it holds not all prompts, B's second call finds little of the first"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.bare:
        bare(options.bare)
        return
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "items.jsonl"
        write_sample(sample, options.data, options.items)
        for number in range(options.repeats):
            pairs.append(compare(Path(scratch) / f"run{number}", sample, options))
            print(json.dumps(pairs[-1]), flush=True)
    figures = [figure(name.replace("_", " "), [pair[name] for pair in pairs]) for name in ("decoding", "same_work", "scoring", "overhead")]
    write(options, f"cot-{options.shots}-shot", figures, pairs)


if __name__ == "__main__":
    main()
