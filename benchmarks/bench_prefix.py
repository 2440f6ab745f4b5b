"""Prefix sharing: `wdct evaluate` against a bare `vllm.LLM.generate` that shares nothing, side by side.

    .venv/bin/python benchmarks/bench_prefix.py [--asked direct|wordings] [--items N] [--repeats 5] [--dtype bfloat16] [--data wdct]
                                                [--small-cache] [--block-items N]

A is `wdct evaluate` on Ray, both orders of each question: `direct`, or in five wordings (`augmented`); from the moment that its engine
is ready to its last shard on disk. B is the ceiling of an engine that does not share: all prompts in one call of `generate`, the same
token ids, one token with the label logprobs, prefix caching off, blocks of vLLM's own size. With `--small-cache` A has a tenth of the
cache that all its different blocks would fill. A B A B …; the figure is A / B, prompts a second. Before it counts, the answers of both
are compared.

The small cache holds a tenth of a few items here, and would hold a tenth of the whole set there: `prompt.block_items` is to this run's
items what its default is to the published set's, unless `--block-items` says otherwise.
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
    ask_in_phases,
    bare_llm,
    evaluate,
    in_own_process,
    log_odds_apart,
    log_odds_of,
    write_sample,
)

from wdct_dist.config.schema import PromptConfig

CONFIG = """
data: {{path: {sample}}}
checkpoints: [{model}]
prompt: {{block_items: {block_items}}}
variants: [{variant}]
augment: {{label_sets: [letters], wordings: [0, 1, 2, 3, 4]}}
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024, cpu_cache_gib: {cache_gib}}}
metrics: {{bootstrap_resamples: 100}}
"""

VARIANTS = {"direct": "direct", "wordings": "augmented"}
ITEMS = {"direct": 100, "wordings": 40}
PUBLISHED_ITEMS = 1225
LARGE_CACHE_GIB = 2.0
SMALL_PART = 0.1


def bare(run: Path) -> None:
    """Scores the run's prompts with a bare engine that shares nothing. Runs in its own process."""
    [phase], responses = ask_in_phases(run, bare_llm(run, prefix_caching=False))
    assert phase.num_cached_tokens == 0
    print(json.dumps({**asdict(phase), "log_odds": log_odds_of(responses)}))


def needed(config: Path) -> None:
    """Prints what a cache needs to keep all different blocks of a configuration's prompts, in GiB. Runs in its own process."""
    from transformers import AutoTokenizer

    from wdct_dist.config.load import load_config
    from wdct_dist.engine.render import Renderer
    from wdct_dist.engine.vllm_cpu_attention import block_size
    from wdct_dist.items.selection import select_items
    from wdct_dist.pipeline import find_checkpoints
    from wdct_dist.prompts.build import build_prompts

    settings = load_config(config)
    directory = find_checkpoints(settings)[0][0].directory
    model = json.loads((directory / "config.json").read_text())
    renderer = Renderer(AutoTokenizer.from_pretrained(directory), settings.prompt.format, settings.prompt)
    size = block_size(settings.engine.dtype.value)
    rendered = renderer.render(list(build_prompts(select_items(settings.data), settings)))
    blocks = {one.token_ids[:stop] for one in rendered for stop in range(size, len(one.token_ids) + 1, size)}
    size_bytes = {"float32": 4, "bfloat16": 2}[settings.engine.dtype.value]
    # keys and values of every layer
    bytes_per_token = 2 * model["num_hidden_layers"] * model["num_key_value_heads"] * model["head_dim"] * size_bytes
    print(json.dumps({"gib": len(blocks) * size * bytes_per_token / 2**30}))


def compare(run: Path, config: str, dtype: str) -> dict[str, Any]:
    """One pair."""
    ours = evaluate(run, config)
    theirs = in_own_process("--bare", str(run))
    apart = log_odds_apart(run, theirs.pop("log_odds"))
    assert apart < 0.01 or dtype != "float32", f"the answers are not the same: log-odds up to {apart} apart"
    bare_per_s = ours.num_prompts / theirs["seconds"]
    return {
        "ratio": ours.prompts_per_s / bare_per_s,
        "cached_share": ours.cached_share,
        "prompts_per_s": {"wdct": ours.prompts_per_s, "bare": bare_per_s},
        "log_odds_apart": apart,
        "wdct": asdict(ours),
        "bare": theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--asked", choices=list(VARIANTS), default="direct")
    parser.add_argument("--items", type=int, help="each gives four prompts, or twenty")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--small-cache", action="store_true")
    parser.add_argument("--block-items", type=int)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--needed", type=Path, help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.bare:
        bare(options.bare)
        return
    if options.needed:
        needed(options.needed)
        return
    items = options.items or ITEMS[options.asked]
    block_items = options.block_items or max(1, round(items * PromptConfig().block_items / PUBLISHED_ITEMS))
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        sample, path = Path(scratch) / "items.jsonl", Path(scratch) / "needed.yaml"
        write_sample(sample, options.data, items)

        def config(cache_gib: float) -> str:
            return CONFIG.format(
                sample=sample,
                model=SMALL_MODEL,
                variant=VARIANTS[options.asked],
                dtype=options.dtype,
                block_items=block_items if options.small_cache else PromptConfig().block_items,
                cache_gib=cache_gib,
            )

        path.write_text(f"run_dir: unused\n{config(LARGE_CACHE_GIB)}")
        needed_gib = in_own_process("--needed", str(path))["gib"]
        cache_gib = SMALL_PART * needed_gib if options.small_cache else LARGE_CACHE_GIB
        print(json.dumps({"needed_gib": needed_gib, "cache_gib": cache_gib, "block_items": block_items}), flush=True)
        for number in range(options.repeats):
            pairs.append(compare(Path(scratch) / f"run{number}", config(cache_gib), options.dtype))
            print(json.dumps(pairs[-1]), flush=True)
    figures = [
        figure("wdct / unshared, prompts a second", [pair["ratio"] for pair in pairs]),
        figure("cached share of the prompt tokens", [pair["cached_share"] for pair in pairs]),
    ]
    write(options, f"prefix-{options.asked}{'-small-cache' if options.small_cache else ''}", figures, pairs)


if __name__ == "__main__":
    main()
