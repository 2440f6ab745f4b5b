"""What a run's prompts need of a machine, and what the machine can do: the least time that is possible.

    .venv/bin/python benchmarks/roofline.py [--dtype bfloat16]        measures this machine alone

Floating-point operations: two for each weight of the matrices and token that is computed (tokens from the cache are not), the output layer
for each token that is read or generated, and the attention's products of queries with keys and with values. Bytes: all weights once a
step of the engine, keys and values of what is decoded. The least time is that of the operations at the measured matrix rate or of the bytes
at the measured bandwidth, whichever is longer; MFU is the first of them over the time that was taken.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Asked:
    """The tokens of one prompt."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What answering takes at least."""

    flops: float
    bytes: float

    def least_s(self, matrix_flops_per_s: float, bytes_per_s: float) -> float:
        return max(self.flops / matrix_flops_per_s, self.bytes / bytes_per_s)


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with gated feed-forward layers, by its `config.json`."""

    layers: int
    hidden: int
    intermediate: int
    queries: int
    """Heads × width of a head."""
    keys: int
    """Of keys, and as many of values."""
    vocabulary: int

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of all layers, without embeddings and output layer."""
        return self.layers * self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.intermediate)

    @property
    def output_weights(self) -> int:
        return self.hidden * self.vocabulary

    def needs(self, asked: Sequence[Asked], dtype: str, max_num_seqs: int, max_num_batched_tokens: int) -> Needs:
        """Of prompts that an engine works on in steps of at most so many sequences and tokens."""
        flops = cached_bytes = 0.0
        for one in asked:
            computed = one.num_prompt_tokens - one.num_cached_tokens + one.num_output_tokens - 1  # the last token is not gone on from
            seen = one.num_prompt_tokens + one.num_output_tokens - 1
            flops += 2.0 * self.layer_weights * computed + 2.0 * self.output_weights * one.num_output_tokens
            flops += 2.0 * self.layers * self.queries * (seen**2 - one.num_cached_tokens**2)
            cached_bytes += 2.0 * self.layers * self.keys * BYTES[dtype] * one.num_prompt_tokens * (one.num_output_tokens - 1)
        prefilled = sum(one.num_prompt_tokens - one.num_cached_tokens for one in asked)
        decoded = sum(one.num_output_tokens for one in asked)
        steps = max(math.ceil(prefilled / max_num_batched_tokens), math.ceil(decoded / max_num_seqs))
        return Needs(flops, steps * BYTES[dtype] * float(self.layer_weights + self.output_weights) + cached_bytes)


def read_shape(directory: Path) -> Shape:
    """The shape of the model in a directory."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    keys = config.get("num_key_value_heads") or config["num_attention_heads"]
    return Shape(
        config["num_hidden_layers"],
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"] * width,
        keys * width,
        config["vocab_size"],
    )


def measure(dtype: str, seconds: float = 2.0) -> dict[str, float]:
    """What this machine does: operations a second in a large matrix product, bytes a second (read and written) in a large copy; the best
    of as many as fit into `seconds` each."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, copied = (8192, 2**30) if device == "cuda" else (2048, 2**28)
    left = torch.randn(size, size).to(device, getattr(torch, dtype))
    right = torch.randn(size, size).to(device, getattr(torch, dtype))
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(call: Any) -> float:
        call()
        shortest, until = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            shortest = min(shortest, time.perf_counter() - began)
        return shortest

    return {
        "matrix_flops_per_s": 2.0 * size**3 / best(lambda: torch.mm(left, right)),
        "bytes_per_s": 2.0 * copied / best(lambda: target.copy_(source)),
        "threads": torch.get_num_threads(),
    }


def measure_apart(dtype: str) -> dict[str, float]:
    """`measure` in a process of its own, whose memory and threads are gone afterwards."""
    done = subprocess.run([sys.executable, __file__, "--dtype", dtype], capture_output=True, text=True, check=True)
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=list(BYTES), default="bfloat16")
    print(json.dumps(measure(parser.parse_args().dtype)))
