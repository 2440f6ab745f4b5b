"""The steps of a swap in the engine's thread: weights, prefix cache, canary."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.engine.protocol import Canary, StartProof
from wdct_dist.errors import CheckpointError, EngineError, SwapRefused

PROBE = "probe"
SEVERAL = 5
"""Findings that a reason names."""


@dataclass(frozen=True, slots=True)
class SwappedWeights:
    load_s: float
    canary: Canary


def swap_weights(llm: Any, new: Path, old: Path) -> SwappedWeights:
    """Has the live engine compute with the weights of `new` in place of those of `old`, and proves it.

    Raises `SwapRefused` before anything is changed where the proof would have gaps, `EngineError` where the proof fails. No request may
    be under way.
    """
    _refuse_untraced(llm, new)
    _probe(llm)  # now the prefix cache has it, with the old weights
    began = time.perf_counter()
    moved = {name for names in llm.collective_rpc("wdct_swap_weights", args=(str(new),)) for name in names}
    if moved:
        raise EngineError(f"the swap moved parameters in memory: {some(sorted(moved))}")
    if not llm.reset_prefix_cache():
        raise EngineError("the prefix cache could not be emptied in the swap")
    loaded = time.perf_counter()
    canary = _prove(llm, new, old)
    return SwappedWeights(loaded - began, Canary(*canary, time.perf_counter() - loaded))


def prove_start(llm: Any, directory: Path) -> StartProof:
    """Compare an engine that has just started with the files of its checkpoint.

    Raises `CheckpointError` if the model computes without a tensor of the files, lacks one, or has other values: vLLM loads such a
    checkpoint in silence, and each further start would do the same.
    """
    began = time.perf_counter()
    found = llm.collective_rpc("wdct_prove_start", args=(str(directory),))
    if faults := sorted({fault for worker in found for fault in worker["faults"]}):
        raise CheckpointError(f"{directory}: the engine does not compute with the weights of these files: {some(faults)}")
    not_proven = sorted({name for worker in found for name in worker["not_proven"]})
    num_tensors = min(worker["num_tensors"] for worker in found)
    return StartProof(num_tensors, len(not_proven), tuple(not_proven[:SEVERAL]), time.perf_counter() - began)


def _refuse_untraced(llm: Any, new: Path) -> None:
    untraced = sorted({name for names in llm.collective_rpc("wdct_untraced", args=(str(new),)) for name in names})
    if untraced:
        raise SwapRefused(f"the canary cannot compare {len(untraced)} of its tensors or layers: {some(untraced)}")


def _prove(llm: Any, new: Path, old: Path) -> tuple[int, int]:
    """(tensors compared, tensors told apart from the old ones), over all workers. Raises `EngineError` for what is not as it should be."""
    found = llm.collective_rpc("wdct_compare", args=(str(new), str(old)))
    wrong = sorted({one for worker in found for one in worker["wrong"]})
    if wrong:
        raise EngineError(f"the canary: the engine does not have the weights of its new checkpoint: {some(wrong)}")
    if (num_cached := _probe(llm)) != 0:
        raise EngineError(f"the canary: {num_cached} tokens of its prompt still came from the old weights' prefix cache")
    return min(worker["num_tensors"] for worker in found), min(worker["num_told_apart"] for worker in found)


def _probe(llm: Any) -> int:
    """Asks the same prompt, a token longer than a block of the prefix cache, every time; how many of its tokens came from there."""
    from vllm import SamplingParams

    config = llm.llm_engine.vllm_config
    vocab_size = config.model_config.get_vocab_size()
    length = min(config.cache_config.block_size + 1, config.model_config.max_model_len - 1)
    token_ids = [(7 * place + 3) % vocab_size for place in range(length)]
    params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, logprob_token_ids=token_ids[:1], flat_logprobs=True)
    llm.llm_engine.add_request(PROBE, {"type": "token", "prompt_token_ids": token_ids}, params)
    outputs = []
    while llm.llm_engine.has_unfinished_requests():
        outputs += [output for output in llm.llm_engine.step() if output.finished and output.request_id == PROBE]
    [output] = outputs
    if not all(map(math.isfinite, output.outputs[0].logprobs.logprobs)):
        raise EngineError("the canary: a logprob is no finite number")
    return int(output.num_cached_tokens or 0)


def some(names: list[str]) -> str:
    more = f"; and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return "; ".join(names[:SEVERAL]) + more
