"""A LoRA adapter as PEFT saves it (adapter_config.json, adapter_model.safetensors): what it changes in its base, and the merging.

For a linear layer of weight W (out × in) the adapter has A (r × in) and B (out × r), and the layer becomes W + s · B·A with
s = alpha / r, or alpha / √r with rank stabilisation (https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2312.03732). B·A and
the sum are computed in float32 and rounded once to the base's own precision. Whole tensors (`modules_to_save`) replace the base's.
What cannot be merged exactly is refused, never left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.digest import TOKENIZER_PATTERNS, deciding_files, file_hashes
from wdct_dist.checkpoints.tensor_data import FLOATS, Place, from_float32, places, to_float32
from wdct_dist.checkpoints.tokenizer import TOKENIZER_FORMS
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS, SAFETENSORS_INDEX, weight_files
from wdct_dist.errors import CheckpointError

CONFIG = "adapter_config.json"
MERGING = "v1"
"""Raised when merging gives other bytes, so that older directories are not taken for its own."""
PREFIX = "base_model.model."
UNMERGEABLE = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "biases of its own",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "single trained tokens",
    "target_parameters": "changes of parameters that are not layers",
    "megatron_config": "Megatron layers",
    "alora_invocation_tokens": "activation by tokens (aLoRA)",
    "arrow_config": "routing between adapters (Arrow)",
}
"""Settings that are refused where they are set, and what they mean."""
INITS_THAT_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
LOW_RANK_PARTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
}
BASE_COPY = ".base_layer.weight"
"""What peft saves along of an embedding that it adapts: the base's own."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one tensor of the base."""

    tensor: str
    b: Place
    """B of a low-rank change; the whole new tensor where there is no A."""
    a: Place | None = None
    scale: float = 1.0
    is_transposed: bool = False
    """The base keeps in × out, as embeddings and GPT-2's layers do."""


@dataclass(frozen=True, slots=True)
class Adapter:
    directory: Path
    base_name: str | None
    """The base that the adapter was trained on, as it states it."""
    base_revision: str | None
    settings: Mapping[str, Any]


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds an adapter and no whole weights."""
    return (directory / CONFIG).is_file() and not weight_files(directory)


def read_adapter(directory: Path) -> Adapter:
    """Raises `CheckpointError` where it is not an adapter, or one that cannot be merged exactly."""
    file = directory / CONFIG
    try:
        settings = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); copy or save it again.") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file}: holds a JSON {type(settings).__name__}, not an object; copy or save it again.")
    _refuse_unmergeable(file, settings)
    if not (directory / ADAPTER_WEIGHTS[0]).is_file():
        raise CheckpointError(f"{directory}: an adapter without {ADAPTER_WEIGHTS[0]}; save it with `safe_serialization=True`.")
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    return Adapter(directory, name if isinstance(name, str) and name else None, revision if isinstance(revision, str) else None, settings)


def _refuse_unmergeable(file: Path, settings: Mapping[str, Any]) -> None:
    merge_yourself = "merge it with peft (`merge_and_unload`) and give the merged directory"
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type is {settings.get('peft_type')!r}; allowed is LORA: {merge_yourself}.")
    if found := [meaning for key, meaning in UNMERGEABLE.items() if settings.get(key)]:
        raise CheckpointError(f"{file}: has {', '.join(found)}, which is not merged here; {merge_yourself}.")
    if settings.get("bias", "none") != "none":
        raise CheckpointError(
            f"{file}: bias is {settings['bias']!r}: it also trained the base's biases; allowed is none: {merge_yourself}."
        )
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(INITS_THAT_CHANGE_THE_BASE):
        raise CheckpointError(
            f"{file}: init_lora_weights is {init!r}, which also changes the base's weights; convert it to a plain LoRA "
            "(peft: `save_pretrained(…, path_initial_model_for_weight_conversion=…)`), or " + merge_yourself + "."
        )


def adapter_digest(base_digest: str, directory: Path, cache: Path) -> str:
    """What base and adapter are together; 64 hex digits."""
    files = [directory / CONFIG, directory / ADAPTER_WEIGHTS[0], *_tokenizer_files(directory)]
    lines = sorted(f"{file.name}\0{sha256}\n" for file, sha256 in file_hashes(files, cache).items())
    return hashlib.sha256("".join([f"merged {MERGING}\0{base_digest}\n", *lines]).encode()).hexdigest()


def find_changes(adapter: Adapter, base: Path) -> tuple[Change, ...]:
    """What the adapter changes in the base's weights, by tensor; nothing is computed.

    Read are headers, the Bs, and what was saved along of the base.

    Raises `CheckpointError` where a part of the adapter has no place in the base, does not fit it, or all of it changes nothing.
    """
    file = adapter.directory / ADAPTER_WEIGHTS[0]
    weights = _weights(base)
    parts: dict[str, dict[str, Place]] = {}
    for name, place in places(file).items():
        if name.endswith(BASE_COPY):
            tensor = _tensor_of(f"{name.removeprefix(PREFIX).removesuffix(BASE_COPY)}.weight", weights, file)
            _refuse_other_copy(place, weights[tensor], tensor, file)
            continue
        module, part = _module_and_part(name.removeprefix(PREFIX))
        parts.setdefault(module, {})[part] = place
    changes = []
    for module, found in parts.items():
        if set(found) == {"whole"}:
            changes.append(Change(_tensor_of(module, weights, file), found["whole"]))
        elif set(found) in ({"A", "B"}, {"embedding A", "embedding B"}):
            is_embedding = "embedding A" in found
            a, b = (found[f"embedding {part}" if is_embedding else part] for part in "AB")
            is_transposed = is_embedding or bool(adapter.settings.get("fan_in_fan_out"))
            scale = scale_of(adapter.settings, module, a.tensor.shape[0])
            changes.append(Change(_tensor_of(f"{module}.weight", weights, file), b, a, scale, is_transposed))
        else:
            raise CheckpointError(
                f"{file}: `{module}` has only {', '.join(sorted(found))} of A and B, or both forms; save the adapter again."
            )
    if not changes:
        raise CheckpointError(f"{file}: holds no tensors; save the adapter again.")
    for change in changes:
        _refuse_unfit(change, weights[change.tensor], file)
    _refuse_tied(changes, weights, file)
    if all(change.a is not None and not any(change.b.read_bytes()) for change in changes):
        raise CheckpointError(
            f"{file}: changes nothing: every B is zero, as before the first training step; give the base itself, or a later checkpoint."
        )
    return tuple(changes)


def merge(adapter: Adapter, base: Path, directory: Path) -> None:
    """Writes the merged model to `directory`: the base's files with the adapted tensors in place, all else byte for byte.

    Where the adapter brings a tokenizer of its own, that one is taken, with its chat template: it was trained with it.
    Raises `CheckpointError` as `find_changes`, and where nothing changes for being smaller than the precision of the base.
    """
    changes = find_changes(adapter, base)
    for file in merged_files(adapter.directory, base):
        shutil.copyfile(file, directory / file.name)
    weights = _weights(directory)
    changed = [_apply(change, weights[change.tensor]) for change in changes]
    if not any(changed):
        raise CheckpointError(
            f"{adapter.directory}: changes nothing: all of it is smaller than the precision of its base; give a base of higher precision."
        )


def merged_files(adapter: Path, base: Path) -> list[Path]:
    """The files that a merged model is made of, before anything in them is changed."""
    tokenizer = _tokenizer_files(adapter)
    replaced = {file for pattern in TOKENIZER_PATTERNS for file in base.glob(pattern)} if tokenizer else set()
    doubled = set(base.glob("consolidated*.safetensors")) | set(base.glob("params.json"))  # an engine would prefer these, unmerged
    index = [file for file in (base / SAFETENSORS_INDEX,) if file.is_file()]
    return sorted({*deciding_files(base), *index} - replaced - doubled) + tokenizer


def _tokenizer_files(directory: Path) -> list[Path]:
    """Those of the adapter, where it has a whole tokenizer."""
    if not any(all((directory / name).is_file() for name in form) for form in TOKENIZER_FORMS):
        return []
    return sorted({file for pattern in TOKENIZER_PATTERNS for file in directory.glob(pattern)})


def has_own_tokenizer(directory: Path) -> bool:
    return bool(_tokenizer_files(directory))


def _weights(base: Path) -> dict[str, Place]:
    files = [file for file in weight_files(base) if file.suffix == ".safetensors" and not file.name.startswith("consolidated")]
    if not files:
        raise CheckpointError(f"{base}: an adapter's base needs its weights as *.safetensors; convert them.")
    return {name: place for file in files for name, place in places(file).items()}


def _module_and_part(name: str) -> tuple[str, str]:
    for suffix, part in LOW_RANK_PARTS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), part
    return name, "whole"


def _tensor_of(name: str, weights: Mapping[str, Place], file: Path) -> str:
    """The base's tensor of that name; some bases leave the outermost module out of their names, or have one more."""
    if name in weights:
        return name
    alike = [one for one in weights if one.endswith(f".{name}") or name.endswith(f".{one}")]
    if len(alike) == 1:
        return alike[0]
    tied = " (the base ties its output layer to its embeddings)" if name.endswith("lm_head.weight") else ""
    raise CheckpointError(f"{file}: changes `{name}`, which the base does not have{tied}; give the base that it was trained on as `base`.")


def scale_of(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """s of a module's change s · B·A, from adapter_config.json."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):  # as peft matches them; the first one counts
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _refuse_unfit(change: Change, base: Place, file: Path) -> None:
    what = f"{file}: the change of `{change.tensor}`"
    if base.tensor.dtype not in FLOATS:
        raise CheckpointError(f"{what}: the base has it quantised ({base.tensor.dtype}); give a base in full precision as `base`.")
    parts = [change.b, *([change.a] if change.a is not None else [])]
    if any(part.tensor.dtype not in FLOATS for part in parts):
        raise CheckpointError(f"{what} is quantised; allowed are {', '.join(FLOATS)}.")
    if change.a is None:
        shape = change.b.tensor.shape
    else:
        a, b = change.a.tensor.shape, change.b.tensor.shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise CheckpointError(f"{what} has A {list(a)} and B {list(b)}; allowed are linear layers: r × in and out × r.")
        shape = (a[1], b[0]) if change.is_transposed else (b[0], a[1])
    if shape != base.tensor.shape:
        raise CheckpointError(
            f"{what} is of shape {list(shape)}, the base's of {list(base.tensor.shape)}; give the base that it was trained on as `base`."
        )


def _refuse_other_copy(copy: Place, base: Place, tensor: str, file: Path) -> None:
    if (copy.tensor.dtype, copy.tensor.shape) != (base.tensor.dtype, base.tensor.shape) or copy.read_bytes() != base.read_bytes():
        raise CheckpointError(
            f"{file}: the `{tensor}` that it was trained on, saved along, is not the one of the base; give the base that it was trained "
            "on as `base`."
        )


def _refuse_tied(changes: list[Change], weights: Mapping[str, Place], file: Path) -> None:
    """Refuse a change of an embedding that the base also uses as its output layer: one tensor cannot be changed for one of the two.

    Merging with PEFT is no way out: it changes the shared tensor, hence the output layer too, and so makes another model than the one that
    was trained (peft issue 2018).
    """
    embeddings = [change.tensor for change in changes if re.search(r"(embed_tokens|wte|word_embeddings)\.weight$", change.tensor)]
    if embeddings and not any(name.endswith(("lm_head.weight", "embed_out.weight", "output.weight")) for name in weights):
        raise CheckpointError(
            f"{file}: changes `{embeddings[0]}`, which the base also uses as its output layer (tie_word_embeddings). `merge_and_unload` of "
            "PEFT would change that layer too. Save a copy of the base with an output layer of its own (a tensor `lm_head.weight` equal to "
            "the embedding, and `tie_word_embeddings: false` in config.json), and give that copy as `base`."
        )


def _apply(change: Change, place: Place) -> bool:
    """Writes the new tensor; whether any byte of it is new."""
    import numpy as np

    before = place.read_bytes()
    new = to_float32(change.b.read_bytes(), change.b.tensor)
    if change.a is not None:
        product = new @ to_float32(change.a.read_bytes(), change.a.tensor)
        new = to_float32(before, place.tensor) + np.float32(change.scale) * (product.T if change.is_transposed else product)
    if not np.isfinite(new).all():
        raise CheckpointError(f"{change.b.file}: `{change.tensor}` is not finite after merging; the adapter is broken.")
    after = from_float32(new, place.tensor.dtype)
    if after == before:
        return False
    place.write_bytes(after)
    return place.read_bytes() == after
