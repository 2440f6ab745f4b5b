"""Which adapters an engine can apply beside the weights of their base, without merging, and the files that it needs for that.

An engine that shares a base computes W·x + B'·(A·x), with B' = s · B rounded to the engine's precision, for every linear layer inside
the model. Whatever else an adapter changes, or says in another way than by one rank and one alpha, is merged.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from wdct_dist.checkpoints.adapter import CONFIG, Adapter, Change, merged_files
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS, SAFETENSORS_INDEX

HIGHEST_RANK = 512
"""What vLLM allows (0.26 to 0.32)."""
OUTPUT_LAYER = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")


def highest_rank(changes: Sequence[Change]) -> int:
    """Of all low-rank parts; 0 where there are none."""
    return max((change.a.tensor.shape[0] for change in changes if change.a is not None and not change.is_transposed), default=0)


def why_merged(adapter: Adapter, changes: Sequence[Change]) -> str | None:
    """Why the adapter has to be merged wherever it runs; None where an engine of its base can apply it as it is."""
    if any(change.a is None for change in changes):
        return "it replaces whole tensors (modules_to_save)"
    if any(change.is_transposed for change in changes):
        return "it adapts embeddings, or layers that are kept transposed"
    if any(OUTPUT_LAYER.search(change.tensor) for change in changes):
        return "it adapts the output layer"
    if any(".experts." in change.tensor for change in changes):
        return "it adapts experts"
    if patterns := [name for name in ("rank_pattern", "alpha_pattern") if adapter.settings.get(name)]:
        return f"it has {' and '.join(patterns)}"
    if (rank := highest_rank(changes)) > HIGHEST_RANK:
        return f"its rank is {rank}, allowed are {HIGHEST_RANK}"
    return None


def shared_files(adapter: Path, base: Path) -> list[Path]:
    """What an engine of the base needs of an adapter: its parts, and the settings and the tokenizer that a merged model would have."""
    weights = (".safetensors", ".bin", ".pt", ".pth")
    settings = [file for file in merged_files(adapter, base) if file.suffix not in weights and file.name != SAFETENSORS_INDEX]
    return [adapter / CONFIG, adapter / ADAPTER_WEIGHTS[0], *settings]


def copy_shared(adapter: Path, base: Path, directory: Path) -> None:
    for file in shared_files(adapter, base):
        shutil.copyfile(file, directory / file.name)
