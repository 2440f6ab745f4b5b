"""What transformers makes of a checkpoint: its resolved configuration, and which tensors its model lacks.

A key that config.json leaves out has a default, which is not always null: `final_logit_softcapping` of Gemma 2 is 30 if the key is absent,
and off if it is null. Two checkpoints are the same build only if their *resolved* configurations are equal.

An engine that misses a tensor answers from uninitialised memory: vLLM's own check exempts every linear layer and every embedding (0.32).
Transformers states which parameters of a model a checkpoint does not have, after tying and renaming. Its model is built on the meta
device from shapes alone, so no weight is read.

Both results are functions of a few small files, and are kept in the cache: importing transformers takes seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wdct_dist.cache import cache_root, put_in_place
from wdct_dist.checkpoints.safetensors_header import Tensor
from wdct_dist.ids import stable_hash

logger = logging.getLogger(__name__)

FORMAT = 1
"""Number of the cached form; raise it if this module computes something else."""

_LOCK = threading.Lock()
"""`from_pretrained` sets defaults of the whole process while it builds a model, and checkpoints are described in several threads."""


@dataclass(frozen=True, slots=True)
class LoadingReport:
    """How the tensors of a checkpoint fit the model that its config.json describes."""

    missing: tuple[str, ...]
    """Parameters of the model that no tensor of the checkpoint provides, sorted by name. Tied parameters are not among them."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """(tensor, its shape in the files, the shape that config.json implies)."""


def resolve_config(directory: Path) -> dict[str, Any] | None:
    """Return config.json with every default of transformers filled in.

    Return None if transformers is not installed or does not know the model.
    """
    file = directory / "config.json"
    found = _cached(["config", file.read_text(encoding="utf-8")], lambda: _resolve(directory))
    return found if isinstance(found, dict) else None


def read_loading_report(directory: Path, tensors: Sequence[Tensor]) -> LoadingReport | None:
    """Compare the names and shapes of `tensors` with the model that config.json describes.

    Return None if transformers cannot say: it is not installed, does not have the class, or the weights are quantised.
    """
    shapes = [[tensor.name, list(tensor.shape)] for tensor in tensors]
    key = ["loading", (directory / "config.json").read_text(encoding="utf-8"), shapes]
    found = _cached(key, lambda: _load_shapes(directory, tensors))
    if found is None:
        return None
    return LoadingReport(tuple(found["missing"]), tuple((name, tuple(a), tuple(b)) for name, a, b in found["mismatched"]))


def _cached(key: list[Any], compute: Callable[[], Any]) -> Any:
    """Return what `compute` returns (a JSON value), from the cache if it was computed before with the same key and transformers."""
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return None
    file = cache_root() / "transformers" / f"{stable_hash([FORMAT, installed, *key], 64)}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    with _LOCK:
        found = compute()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(file, json.dumps(found))
    except OSError as error:
        logger.debug("The cache could not be written: %s", error)
    return found


def _resolve(directory: Path) -> dict[str, Any] | None:
    try:
        from transformers import AutoConfig

        resolved = AutoConfig.from_pretrained(directory, trust_remote_code=False).to_dict()
        found: dict[str, Any] = json.loads(json.dumps(resolved, default=str))
    except Exception as error:  # an unknown model, custom code, or a value that transformers refuses: the engine says it in its own words
        logger.debug("%s: transformers does not resolve its config.json: %s", directory, error)
        return None
    return found


def _load_shapes(directory: Path, tensors: Sequence[Tensor]) -> dict[str, Any] | None:
    try:
        import torch
        import transformers

        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
        model_class = getattr(transformers, (config.architectures or [""])[0], None)
        if model_class is None or getattr(config, "quantization_config", None) is not None:
            return None
        state = {tensor.name: torch.empty(tensor.shape, device="meta") for tensor in tensors}
        tied, missing, mismatched = _load_meta(model_class, config, state)
        if copies := state.keys() & tied.keys():
            # transformers would also fill the embedding from its tied copy, the output layer; vLLM reads the embedding alone
            _, missing, _ = _load_meta(model_class, config, {name: state[name] for name in state.keys() - copies})
    except Exception as error:  # transformers raises whatever its model class raises; the engine's own proof follows
        logger.debug("%s: transformers does not build its model: %s", directory, error)
        return None
    missing -= {copy for copy, original in tied.items() if original in missing}
    return {"missing": sorted(missing), "mismatched": sorted([name, list(found), list(wanted)] for name, found, wanted in mismatched)}


def _load_meta(model_class: Any, config: Any, state: dict[str, Any]) -> tuple[dict[str, str], set[str], set[Any]]:
    """Load meta tensors; return the tied parameters (copy to original), the missing keys and the mismatched ones."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=dict(state), device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    return dict(getattr(model, "all_tied_weights_keys", None) or {}), set(info["missing_keys"]), set(info["mismatched_keys"])
