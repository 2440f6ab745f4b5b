"""Whether a live engine can take another checkpoint without a restart. Pure but for reading headers; no vLLM.

Asked twice: `can_swap` from what is known of two checkpoints, before an engine is troubled; `difference` in the engine itself, from the
very files that it is about to load, against those that it was built from. vLLM would load a checkpoint that lacks a tensor and keep
the old one in silence, and one wrong shape spoils the next load too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.model_config import read_model_config
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.checkpoints.weights import read_weights

ABSENT = object()

SEVERAL = 3
"""Differences that a reason names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can swap; where it cannot, why."""

    possible: bool
    reason: str = ""


def can_swap(old: Checkpoint, new: Checkpoint) -> Verdict:
    """Whether an engine that was started with `old` can take `new`, from what both are described as."""
    for what, before, after in (("architecture", old.architecture, new.architecture), ("dtype", old.dtype, new.dtype)):
        if before != after:
            return Verdict(False, f"another {what}: {after}, the engine has {before}")
    if old.signature != new.signature:
        return Verdict(False, "another model configuration, other tensors or other end-of-text tokens")
    return Verdict(True)


@dataclass(frozen=True, slots=True)
class Build:
    """What of a checkpoint an engine is built from and keeps for its life."""

    architecture: str
    dtype: str | None
    settings: Mapping[str, Any]
    """Of config.json, all that has an effect."""
    end_tokens: tuple[Any, ...]
    """Of generation_config.json and config.json."""
    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    """Shape and dtype by name."""
    is_pickled: bool = False


def read_build(directory: Path, *, allow_pickle: bool) -> Build:
    """Reads headers and configuration, not the weights. Raises `CheckpointError` where the files are not whole."""
    weights = read_weights(directory, allow_pickle=allow_pickle)
    config = read_model_config(directory)
    _, end_tokens, settings = json.loads(config.decisive)
    return Build(
        config.architecture,
        config.dtype,
        settings,
        tuple(end_tokens),
        {tensor.name: (tensor.shape, tensor.dtype) for tensor in weights.tensors},
        is_pickled=any(file.suffix != ".safetensors" for file in weights.files),
    )


def difference(old: Build, new: Build) -> str | None:
    """Why an engine that was built from `old` cannot take `new`; None where it can."""
    if new.is_pickled or old.is_pickled:
        return "its weights are pickled, and a swap of such weights cannot be proven"
    if new.architecture != old.architecture:
        return f"another architecture: {new.architecture}, the engine has {old.architecture}"
    if any(build.settings.get("quantization_config") is not None for build in (old, new)):
        return "its weights are quantised, and a swap of such weights cannot be proven"
    if new.settings.get("vocab_size") != old.settings.get("vocab_size"):
        return f"another vocabulary: {new.settings.get('vocab_size')} tokens, the engine has {old.settings.get('vocab_size')}"
    # an absent key is not a null one: each has its own meaning
    if changed := sorted(key for key in {*old.settings, *new.settings} if old.settings.get(key, ABSENT) != new.settings.get(key, ABSENT)):
        return f"its config.json differs in {_some(changed)}"
    if new.end_tokens != old.end_tokens:
        return f"other end-of-text tokens: {list(new.end_tokens)}, the engine has {list(old.end_tokens)}"
    if new.dtype != old.dtype:
        return f"another dtype: {new.dtype}, the engine has {old.dtype}"
    if missing := sorted(old.tensors.keys() - new.tensors.keys()):
        return f"it lacks {len(missing)} of the engine's {len(old.tensors)} tensors: {_some(missing)}"
    if added := sorted(new.tensors.keys() - old.tensors.keys()):
        return f"it has {len(added)} tensors that the engine has not: {_some(added)}"
    for name, (shape, dtype) in new.tensors.items():
        old_shape, old_dtype = old.tensors[name]
        if (shape, dtype) != (old_shape, old_dtype):
            return f"tensor {name} is {dtype}{list(shape)}, the engine's {old_dtype}{list(old_shape)}"
    return None


def other_vocabulary(old: Any, new: Any) -> str | None:
    """Why an engine that has the tokenizer `old` cannot take `new` (vLLM keeps its own to the end); None where it can."""
    if new.get_vocab() != old.get_vocab():
        return f"another vocabulary: its tokenizer's {len(new.get_vocab())} tokens are not the engine's {len(old.get_vocab())}"
    if new.eos_token_id != old.eos_token_id:
        return f"another end-of-text token: {new.eos_token!r}, the engine has {old.eos_token!r}"
    return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return f"{', '.join(names[:SEVERAL])}{more}"
