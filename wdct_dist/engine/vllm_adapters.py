"""LoRA adapters in a live engine that has their base: added one by one beside each other, each proven to be applied.

An adapter's proof has two halves. Every worker holds what it keeps for the adapter, A and s · B of every layer, against the adapter's file,
bit for bit, and what it keeps for layers that the adapter leaves alone against zero. Then a probe is asked: its logprobs have to
differ from the base's and from those of every other adapter, else requests do not reach the adapter's place.

An adapter has a place of its own from its addition to its removal; there are never more adapters than places, since vLLM would load
one again later, unproven. The prefix cache goes by the adapter's name, which is its digest.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.adapter import CONFIG, LOW_RANK_PARTS, PREFIX, scale_of
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS
from wdct_dist.engine.protocol import Canary, Sharing
from wdct_dist.engine.vllm_swap import some
from wdct_dist.errors import EngineError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM can be built for."""

PROBE = "adapter probe"
PROBE_TOKENS = 16
PROBE_LOGPROBS = 64

Logprobs = tuple[float, ...]
Step = Callable[[], list[Any]]
"""Has vLLM do a step, and returns outputs of requests that are nobody else's."""


@dataclass(frozen=True, slots=True)
class Applied:
    """An adapter was added, and is applied."""

    load_s: float
    canary: Canary
    logprobs: Logprobs
    """Of the probe."""


def arguments(sharing: Sharing) -> dict[str, Any]:
    """vLLM's, for an engine that takes adapters."""
    rank = min(rank for rank in RANKS if rank >= sharing.highest_rank)
    return {"enable_lora": True, "max_loras": sharing.num_slots, "max_lora_rank": rank}


def request_for(digest: str, number: int, directory: Path) -> Any:
    """What every request for the adapter carries; `number` is one that no adapter had before."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(digest, number, str(directory))


def add(llm: Any, adapter: Any, removed: list[int], others: Mapping[str, Logprobs], step: Step) -> Applied:
    """Adds an adapter, `removed` (by number) before it, and proves that it is applied; what else is under way goes on meanwhile.

    `others`: what the probe said without an adapter and with others, by name. Raises `EngineError` where it is not proven.
    """
    began = time.perf_counter()
    for number in removed:
        llm.llm_engine.remove_lora(number)
    if adapter.lora_int_id not in llm.llm_engine.list_loras():
        llm.llm_engine.add_lora(adapter)
    num_slots = llm.llm_engine.vllm_config.lora_config.max_loras
    if len(llm.llm_engine.list_loras()) > num_slots:
        raise EngineError(f"the engine has more adapters than its {num_slots} places")
    loaded = time.perf_counter()
    found = llm.collective_rpc("wdct_compare_adapter", args=(adapter.lora_path, adapter.lora_int_id))
    if wrong := sorted({one for worker in found for one in worker["wrong"]}):
        raise EngineError(f"the canary: the engine does not have the adapter as its file has it: {some(wrong)}")
    logprobs = probe(llm, adapter, step)
    if alike := sorted(name for name, said in others.items() if said == logprobs):
        raise EngineError(f"the canary: a prompt for the adapter is answered as one for {some(alike)}: the adapter is not applied")
    numbers = [min(worker[key] for worker in found) for key in ("num_tensors", "num_told_apart")]
    return Applied(loaded - began, Canary(numbers[0], numbers[1], time.perf_counter() - loaded), logprobs)


def probe(llm: Any, adapter: Any | None, step: Step) -> Logprobs:
    """Logprobs behind a made-up prompt. Without an adapter only as long as no adapter was added: beside them the base is not itself."""
    from vllm import SamplingParams

    config = llm.llm_engine.vllm_config
    vocab_size = config.model_config.get_vocab_size()
    length = min(PROBE_TOKENS, config.model_config.max_model_len - 1)
    token_ids = [(7 * place + 3) % vocab_size for place in range(length)]
    read = sorted({vocab_size * number // PROBE_LOGPROBS for number in range(PROBE_LOGPROBS)})
    params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, logprob_token_ids=read, flat_logprobs=True)
    first = {"priority": -2} if config.scheduler_config.policy == "priority" else {}
    llm.llm_engine.add_request(PROBE, {"type": "token", "prompt_token_ids": token_ids}, params, lora_request=adapter, **first)
    outputs: list[Any] = []
    while not outputs:
        outputs = [output for output in step() if output.request_id == PROBE]
    logprobs: Logprobs = tuple(outputs[0].outputs[0].logprobs.logprobs)
    if not all(map(math.isfinite, logprobs)):
        raise EngineError("the canary: a logprob is no finite number")
    return logprobs


# In vLLM's workers.


def compare(manager: Any, directory: Path, number: int) -> dict[str, Any]:
    """Holds what a worker keeps for an adapter against the adapter's files. `manager`: vLLM's `LoRAModelManager`."""
    if number not in manager.lora_index_to_id:
        return {"num_tensors": 0, "num_told_apart": 0, "wrong": ["it has no place"]}
    slot = manager.lora_index_to_id.index(number)
    wrong: list[str] = []
    num_tensors = num_told_apart = 0
    by_layer, lost = _wanted(manager, directory)
    wrong += [f"{name} is not found" for name in lost]
    for name, layer in manager.modules.items():
        live = _kept(layer, slot)
        if name not in by_layer:
            wrong += [f"{name} has values that are not the adapter's" for _, tensor in live if bool(tensor.any())][:1]
            continue
        wanted = _of_this_worker(layer, by_layer[name])
        if len(wanted) != len(live):
            wrong.append(f"{name} cannot be compared: {len(wanted)} tensors of the adapter, {len(live)} in the engine")
            continue
        for (part, tensor), value in zip(live, wanted, strict=True):
            whole = tensor.new_zeros(tensor.shape)
            if value is not None:
                whole[: value.shape[0], : value.shape[1]] = value.to(tensor.device)
                num_tensors += 1
                num_told_apart += bool(value.any())
            if num_wrong := int((tensor != whole).sum()):
                wrong.append(f"{name} ({part}): {num_wrong} of {tensor.numel()} values differ")
    return {"num_tensors": num_tensors, "num_told_apart": num_told_apart, "wrong": wrong}


def _wanted(manager: Any, directory: Path) -> tuple[dict[str, list[tuple[Any, Any] | None]], list[str]]:
    """(A, s · B) in the engine's precision for each part of each adapted layer, by the layer's name; and what has no layer."""
    from safetensors import safe_open

    settings = json.loads((directory / CONFIG).read_bytes())
    pieces = {piece: (name, place) for name, several in manager.packed_modules.items() for place, piece in enumerate(several)}
    dtype = manager.lora_config.lora_dtype
    found: dict[str, dict[str, Any]] = {}
    with safe_open(directory / ADAPTER_WEIGHTS[0], framework="pt") as file:
        for tensor in file.keys():  # noqa: SIM118
            for suffix, part in LOW_RANK_PARTS.items():
                if tensor.endswith(suffix):
                    module = tensor.removeprefix(PREFIX).removesuffix(suffix)
                    found.setdefault(module, {})[part] = file.get_tensor(tensor).to(dtype)
    wanted: dict[str, list[tuple[Any, Any] | None]] = {}
    lost = []
    for module, parts in found.items():
        scale = scale_of(settings, module, parts["A"].shape[0])
        pair = parts["A"], parts["B"] if scale == 1 else parts["B"] * scale
        name = _renamed(manager.model, module)
        if name in manager.modules:
            wanted[name] = [pair]
        elif name in pieces and pieces[name][0] in manager.modules:
            layer, place = pieces[name]
            wanted.setdefault(layer, [None] * len(manager.packed_modules[layer]))[place] = pair
        else:
            lost.append(module)
    return wanted, lost


def _renamed(model: Any, module: str) -> str:
    """The module's name in vLLM's model, before layers are packed together."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return module
    mapper = mapper.get_rename_mapper() if hasattr(mapper, "get_rename_mapper") else mapper
    name = (getattr(mapper, "map_name", None) or mapper._map_name)(f"{module}.weight")
    return module if name is None else str(name).removesuffix(".weight")


def _kept(layer: Any, slot: int) -> list[tuple[str, Any]]:
    """What a layer keeps for the adapter of a slot, in tables: all As, then all Bs."""
    kept = []
    for part in ("A", "B"):
        stacked = getattr(layer, f"lora_{part.lower()}_stacked", ())
        several = stacked if isinstance(stacked, tuple | list) else (stacked,)
        kept += [(part, table[slot].flatten(0, -2)) for table in several]
    return kept


def _of_this_worker(layer: Any, pairs: list[tuple[Any, Any] | None]) -> list[Any]:
    """All As, then all Bs: of each the share that this worker has. A layer that is no packed one takes tensors, the others lists."""
    sliced: list[Any] = []
    for part, slice_of in ((0, layer.slice_lora_a), (1, layer.slice_lora_b)):
        tensors = [None if pair is None else pair[part] for pair in pairs]
        if layer.tp_size > 1:
            sliced += [slice_of(tensors[0])] if len(tensors) == 1 else slice_of(tensors)
        else:
            sliced += tensors
    return sliced
