"""Refuse a checkpoint whose tensors do not fit the model that its config.json describes, before any engine starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from wdct_dist.checkpoints.reference_model import read_loading_report
from wdct_dist.checkpoints.weights import SAFETENSORS_INDEX, Weights, read_index
from wdct_dist.errors import CheckpointError

SEVERAL = 3
"""Tensors that a message names."""

EXPERT = re.compile(r"(?P<layer>.+\.experts)\.(?P<number>\d+)\.(?P<rest>.+)")


def require_all_tensors(directory: Path, architecture: str, weights: Weights) -> None:
    """Raise `CheckpointError` if a parameter of the model has no tensor, or a tensor has another shape than config.json implies.

    A checkpoint that transformers cannot judge (custom code, quantised weights) passes: the engine compares what it has loaded.
    """
    missing = find_missing_experts(tensor.name for tensor in weights.tensors)
    report = read_loading_report(directory, weights.tensors)
    if report is not None:
        missing += report.missing
    if missing:
        more = f" and {len(missing) - SEVERAL} more" if len(missing) > SEVERAL else ""
        raise CheckpointError(
            f"{directory}: the weights lack {len(missing)} tensors of a {architecture}: {', '.join(missing[:SEVERAL])}{more}. "
            "An engine would answer from uninitialised memory. Save the whole model again (`save_pretrained`), or copy the missing files."
        )
    for name, file_shape, model_shape in report.mismatched if report is not None else ():
        _refuse_shape(directory, weights, name, file_shape, model_shape)


def find_missing_experts(names: Iterable[str]) -> list[str]:
    """Return the tensors that some experts of a mixture-of-experts layer have and others of the same layer lack, sorted by name."""
    numbers: dict[str, set[int]] = {}
    parts: dict[str, set[str]] = {}
    present = set[str]()
    for name in names:
        if match := EXPERT.fullmatch(name):
            numbers.setdefault(match["layer"], set()).add(int(match["number"]))
            parts.setdefault(match["layer"], set()).add(match["rest"])
            present.add(name)
    expected = (f"{layer}.{number}.{part}" for layer in parts for number in range(max(numbers[layer]) + 1) for part in parts[layer])
    return sorted(set(expected) - present)


def _refuse_shape(directory: Path, weights: Weights, name: str, file_shape: tuple[int, ...], model_shape: tuple[int, ...]) -> None:
    file = _file_of(directory, weights, name)
    vocab_size = _vocab_size(directory)
    if file_shape[1:] == model_shape[1:] and model_shape[:1] == (vocab_size,):
        raise CheckpointError(
            f"{directory / 'config.json'}: vocab_size is {vocab_size:,}, but tensor `{name}` in {file} has {file_shape[0]:,} rows. "
            "The usual cause is that tokens were added to the model (`resize_token_embeddings`) and config.json was kept or copied from "
            f"another model. Copy the config.json that belongs to these weights, or set vocab_size to {file_shape[0]}."
        )
    raise CheckpointError(
        f"{directory}: tensor `{name}` has shape {list(file_shape)} in {file}, but config.json implies {list(model_shape)}. "
        "config.json and the weights are of different models: copy both again."
    )


def _file_of(directory: Path, weights: Weights, name: str) -> str:
    index = directory / SAFETENSORS_INDEX
    by_tensor = read_index(index) if index.is_file() else {}
    return by_tensor.get(name, weights.files[0].name if len(weights.files) == 1 else "the weight files")


def _vocab_size(directory: Path) -> int | None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config")
    found = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    return found if isinstance(found, int) else None
