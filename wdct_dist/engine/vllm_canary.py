"""The canary of a swap: whether a live model computes with the weights of a checkpoint, as its files have them.

vLLM fuses layers, packs their weights and drops the originals, so its parameters say little: the layers themselves are *asked*. A linear
layer that is given a one-hot vector answers with a column of the weights that it really uses, and does so exactly in every precision
(one product and zeros). An embedding answers with its rows, everything else is read. The values are compared with the
same ones in the safetensors files, bit for bit.

They are taken where the new and the old checkpoint differ, so a layer that has kept its old weights cannot pass. Every tensor of
the checkpoint has to be found in the model and every layer of the model in the checkpoint; what is not is *untraced*.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from wdct_dist.checkpoints.weights import weight_files

NUM_ROWS = 16
"""Rows of a tensor that are compared. Each is a page to touch in two files."""

NUM_COLUMNS = 8
"""Columns of them; each is a one-hot vector more to multiply."""

SEARCH_BYTES = 4 * 2**20
"""How much of a tensor is searched for a difference between the old and the new weights where the sample has none."""

NOT_WEIGHTS = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
"""Old checkpoints carry these; vLLM computes them from the configuration."""

LEFTOVERS = re.compile(r"\.(attention|attn)\.(masked_)?bias$")
"""Causal masks that GPT-2 and GPT-NeoX once saved beside the weights, under the name that a bias of the attention would have."""

DERIVED = ("W_UV", "W_UK_T")
"""What multi-head latent attention makes of its weights and keeps beside them: not asked, so not proven."""

Kind = Literal["linear", "embedding", "parameter"]


class Files:
    """The tensors of a checkpoint by name, read where they are touched."""

    def __init__(self, directory: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._opened: dict[str, Any] = {}
        for file in weight_files(directory):
            try:
                opened = safe_open(file, framework="pt")
            except (OSError, SafetensorError):  # the old checkpoint may be gone; the new one has just been read whole
                continue
            names: list[str] = list(opened.keys())  # type: ignore[no-untyped-call]
            self._opened |= dict.fromkeys(names, opened)

    @property
    def names(self) -> list[str]:
        return sorted(self._opened)

    def table(self, name: str) -> Any:
        """The tensor as a table [length of its first dimension, the rest]; None where there is no such tensor."""
        if name not in self._opened:
            return None
        tensor = self._opened[name].get_tensor(name)
        return tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1, 1)

    def are_equal(self, first: str, second: str | None) -> bool:
        """Return whether two tensors hold the same values in the same precision; False if one of them is not in the files."""
        if first not in self._opened or second not in self._opened:
            return False
        one, other = (self._opened[name].get_tensor(name) for name in (first, second))
        return one.dtype == other.dtype and bool((one == other).all()) if one.shape == other.shape else False

    def shape(self, name: str) -> tuple[int, int]:
        """Of `table`, from the header alone."""
        lengths: list[int] = self._opened[name].get_slice(name).get_shape()
        return (lengths[0], math.prod(lengths[1:])) if lengths else (1, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows and columns of a checkpoint's tensor are in the live model."""

    tensor: str
    kind: Kind
    module: Any
    parameter: str
    rows: tuple[int, int]
    """Of the tensor, from start to stop: those that this worker has."""
    columns: tuple[int, int]
    live_row: int = 0
    """Where the first of `rows` is in the layer's output."""

    @property
    def dtype(self) -> Any:
        """The precision that the model has the weights in."""
        return getattr(self.module, "params_dtype", getattr(self.module, self.parameter).dtype)


@dataclass(frozen=True, slots=True)
class Sample:
    """Which values of a tensor are compared."""

    place: Place
    rows: Any
    """Of the tensor, as an index tensor."""
    columns: Any
    wanted: Any
    """What the file has there, in the model's precision: a table of the lengths of both."""
    differs: bool
    """Whether the old weights have other values there."""


@dataclass(slots=True)
class Traced:
    places: list[Place] = field(default_factory=list)
    untraced: list[str] = field(default_factory=list)
    """Tensors of the checkpoint and layers of the model that cannot be compared."""
    dropped: list[str] = field(default_factory=list)
    """Tensors among them that belong to a layer which has no such parameter: the model computes without them."""
    unfilled: list[str] = field(default_factory=list)
    """Layers of the model that no tensor fills. Known only if every tensor was found in the model."""
    missing: list[Place] = field(default_factory=list)
    """Weights and biases of linear layers, or pieces of them, that no tensor fills although other tensors fill the rest of the layer."""


@dataclass(slots=True)
class StartProof:
    """What a comparison of a freshly started model with its files found."""

    num_tensors: int = 0
    """Tensors that were compared and are right."""
    not_proven: list[str] = field(default_factory=list)
    """Tensors and layers that cannot be compared: quantised, mixture of experts, or kept in another order than in the files."""
    faults: list[str] = field(default_factory=list)
    """What the model computes otherwise than the files say, in words."""


@dataclass(slots=True)
class Found:
    """What a comparison found."""

    num_tensors: int = 0
    num_told_apart: int = 0
    """Tensors that were compared where the old and the new weights differ."""
    wrong: list[str] = field(default_factory=list)
    """What the model has otherwise than the checkpoint, in words."""


def compare(model: Any, new: Files, old: Files) -> Found:
    """Compares what the model computes with the files of `new`, where these differ from those of `old`."""
    traced = trace(model, new)
    found = Found(wrong=[f"{name} is not found" for name in traced.untraced])
    told_apart, compared = set[str](), set[str]()
    for sample, live in _compared(traced.places, new, old):
        compared.add(sample.place.tensor)
        if sample.differs:
            told_apart.add(sample.place.tensor)
        if wrong := _wrong(sample, live):
            found.wrong.append(wrong)
    found.num_tensors, found.num_told_apart = len(compared), len(told_apart)
    return found


def prove_start(model: Any, files: Files) -> StartProof:
    """Compare what a freshly started model computes with its files.

    A swap may refuse what it cannot compare, since a fresh engine takes over. Here nothing takes over, so only what is certainly wrong is a
    fault: a value that is nowhere in the file's row or column, a tensor that the model drops, a layer that no tensor fills.
    """
    traced = trace(model, files)
    proof = StartProof(not_proven=list(traced.untraced))
    if not files.names:  # pickled weights
        return proof
    # without a bias of zeros the model computes the same
    dropped = [name for name in traced.dropped if not name.endswith(".bias") or bool(files.table(name).any())]
    proof.faults += [f"{name}: the model has no such parameter and computes without it" for name in dropped]
    proof.faults += [f"{name}: no tensor of the files fills this layer" for name in traced.unfilled]
    right = set[str]()
    by_layer = _by_layer(traced.places)
    for group in by_layer.values():
        try:
            for sample, live in _compared(group, files, None):
                wrong = _wrong(sample, live)
                if wrong is None:
                    right.add(sample.place.tensor)
                elif _is_rearranged(sample.place, files):
                    proof.not_proven.append(sample.place.tensor)
                else:
                    proof.faults.append(wrong)
        except Exception as error:  # a layer that the canary does not know; the proof of all others stands
            proof.not_proven += [f"{place.tensor} ({type(error).__name__}: {error})" for place in group]
            right -= {place.tensor for place in group}
    for place in traced.missing:
        try:
            fault = _missing(place, by_layer.get(_layer(place), ()))
        except Exception as error:
            proof.not_proven.append(f"{place.tensor} ({type(error).__name__}: {error})")
            continue
        if fault is not None and place.parameter == "bias" and not bool(_ask([_corner(place)])[0].any()):
            proof.not_proven.append(fault)  # some loaders fill a bias that the files do not have with zeros
        elif fault is not None:
            proof.faults.append(fault)
    proof.num_tensors = len(right - set(proof.not_proven))
    return proof


def _missing(place: Place, others: Sequence[Place]) -> str | None:
    """Return what is wrong with a piece that no tensor fills; None if it is a copy of another piece of its layer (values from keys)."""
    [live] = _ask([_corner(place)])
    for other in others:
        if other.rows[1] - other.rows[0] == place.rows[1] and bool((_ask([_corner(other)])[0] == live).all()):
            return None
    return f"{place.tensor}: no tensor of the files fills this part of the layer"


def _corner(place: Place) -> Sample:
    """Rows and columns of a place without the values of a file."""
    return Sample(place, _spread(*place.rows, NUM_ROWS), _spread(*place.columns, NUM_COLUMNS), None, False)


def _layer(place: Place) -> tuple[int, str, str]:
    return id(place.module), place.parameter, place.kind


def _by_layer(places: Sequence[Place]) -> dict[tuple[int, str, str], list[Place]]:
    by_layer: dict[tuple[int, str, str], list[Place]] = {}
    for place in places:
        by_layer.setdefault(_layer(place), []).append(place)
    return by_layer


def _compared(places: Sequence[Place], new: Files, old: Files | None) -> Iterator[tuple[Sample, Any]]:
    """Yield each sample with the values that the model has there."""
    for group in _by_layer(places).values():
        samples = [_sampled(place, new, old) for place in group]
        yield from zip(samples, _ask(samples), strict=True)


def _wrong(sample: Sample, live: Any) -> str | None:
    """Return what is wrong with the values of a sample; None if all of them are those of the file."""
    num_wrong = int((live != sample.wanted.to(live.dtype)).sum())
    place = sample.place
    return f"{place.tensor} ({type(place.module).__name__}): {num_wrong} of {live.numel()} values differ" if num_wrong else None


def _is_rearranged(place: Place, files: Files) -> bool:
    """Return whether the model has the values of the file in another order: transposed (GPT-2), or with permuted rows (Bloom's QKV)."""
    import torch

    table = files.table(place.tensor)
    rows, column = torch.arange(*place.rows), place.columns[0]
    whole = Sample(place, rows, torch.tensor([column]), None, False)
    live = _ask([whole])[0].flatten()
    candidates = [table[:, column], *([table[column]] if column < len(table) else [])]
    return any(bool(torch.isin(live, values.to(place.dtype).to(live.dtype)).all()) for values in candidates)


def _sampled(place: Place, new: Files, old: Files | None) -> Sample:
    table = new.table(place.tensor)
    rows, columns, differs = _sample(table, None if old is None else old.table(place.tensor), place)
    return Sample(place, rows, columns, table[rows][:, columns].to(place.dtype), differs)


def _ask(samples: Sequence[Sample]) -> list[Any]:
    """What the model has where `samples` are, all of one layer and kind: a table of each. A linear layer computes once for all of them."""
    import torch

    first = samples[0].place
    module, live = first.module, getattr(first.module, first.parameter)
    rows = [(sample.rows - sample.place.rows[0] + sample.place.live_row).to(live.device) for sample in samples]
    columns = [(sample.columns - sample.place.columns[0]).to(live.device) for sample in samples]
    with torch.inference_mode():
        if first.kind == "parameter":
            table = live.reshape(len(live), -1) if live.ndim else live.reshape(1, 1)
            return [table[here][:, across].cpu() for here, across in zip(rows, columns, strict=True)]
        if first.kind == "embedding":
            return [module.quant_method.embedding(module, here)[:, across].cpu() for here, across in zip(rows, columns, strict=True)]
        hot = torch.cat(columns)
        vectors = torch.zeros(len(hot), first.columns[1] - first.columns[0], dtype=first.dtype, device=live.device)
        vectors[torch.arange(len(hot), device=live.device), hot] = 1
        answers = module.quant_method.apply(module, vectors, None).split([len(across) for across in columns])
        return [answer[:, here].T.cpu() for answer, here in zip(answers, rows, strict=True)]


def trace(model: Any, files: Files) -> Traced:
    """Where every tensor of the checkpoint is in the model; names of the tensors and layers that cannot be compared."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    modules = dict(model.named_modules(remove_duplicate=False))
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    tied = {id(head): other for head in heads for other in model.modules() if is_tied(head, other)}
    traced = Traced()
    own_heads: list[tuple[str, Any]] = []
    """Tensors of output layers that the engine has tied to their embedding, with the embedding."""
    embeddings: dict[int, str] = {}
    untraced: list[str] = []
    """Names in the model of tensors that were not found."""
    for tensor in files.names:
        mapped = _mapped(model, tensor)
        if mapped is None or tensor.endswith(NOT_WEIGHTS):
            continue
        place = _place(model, modules, tensor, mapped, files.shape(tensor))
        if place is None:
            traced.untraced.append(tensor)
            untraced.append(mapped)
            if not LEFTOVERS.search(tensor) and _is_dropped(model, modules, tensor, mapped):
                traced.dropped.append(tensor)
        elif id(place.module) in tied:
            own_heads.append((tensor, tied[id(place.module)]))
        else:
            traced.places.append(place)
            if place.kind == "embedding":
                embeddings[id(place.module)] = tensor
                # it gives the logits too: through a layer that shares its weights, or itself
                sharing = [head for head in heads if tied.get(id(head)) is place.module] if heads else [place.module]
                traced.places += [replace(place, kind="linear", module=module) for module in sharing]
    for tensor, embedding in own_heads:
        # vLLM ties an output layer whose tensor equals the embedding, and keeps one that differs (0.32); a tied layer cannot take that
        if not files.are_equal(tensor, embeddings.get(id(embedding))):
            traced.untraced.append(f"{tensor} (it differs from the embedding, and the engine has one tensor for both)")
    seen = {id(place.module) for place in traced.places}
    unseen = sorted(name for name, module in modules.items() if id(module) not in seen and _computes_with_weights(module))
    if not traced.untraced:
        traced.unfilled = unseen
    traced.missing = _missing_pieces(model, modules, traced.places, untraced)
    traced.untraced += unseen
    return traced


def _missing_pieces(model: Any, modules: dict[str, Any], places: Sequence[Place], untraced: Sequence[str]) -> list[Place]:
    """Return the weights and biases, or pieces of them, that no tensor fills in layers whose rest is filled.

    A layer is skipped if a tensor that was not found lies in the same block: the missing piece may have another name in the files.
    """
    from vllm.model_executor.layers.linear import LinearBase

    filled: dict[tuple[int, str], dict[int, Place]] = {}
    for place in places:
        filled.setdefault((id(place.module), place.parameter), {})[place.live_row] = place
    packed_pieces = getattr(model, "packed_modules_mapping", {})
    missing: list[Place] = []
    for name, module in modules.items():
        stem, dot, last = name.rpartition(".")
        weights = filled.get((id(module), "weight"), {})
        if not isinstance(module, LinearBase) or not weights or any(other.startswith(stem + dot) for other in untraced):
            continue
        sizes = list(getattr(module, "output_partition_sizes", []))
        pieces = packed_pieces.get(last, [])
        columns = next(iter(weights.values())).columns
        for parameter in ("weight", "bias"):
            known = filled.get((id(module), parameter), {})
            num_known = sum(place.rows[1] - place.rows[0] for place in known.values())
            if getattr(module, parameter, None) is None or num_known >= sum(sizes):
                continue
            kind: Kind = "linear" if parameter == "weight" else "parameter"
            width = (0, columns[1] - columns[0]) if parameter == "weight" else (0, 1)
            if not known or len(pieces) != len(sizes):
                missing.append(Place(f"{name}.{parameter}", kind, module, parameter, (0, sum(sizes)), width))
                continue
            for index, (piece, size) in enumerate(zip(pieces, sizes, strict=True)):
                if (live_row := sum(sizes[:index])) not in known:
                    missing.append(Place(f"{stem}{dot}{piece}.{parameter}", kind, module, parameter, (0, size), width, live_row))
    return missing


def is_tied(head: Any, other: Any) -> bool:
    return other is not head and getattr(other, "weight", None) is head.weight


def _computes_with_weights(module: Any) -> bool:
    return any(parameter is not None for parameter in module._parameters.values()) or any(hasattr(module, name) for name in DERIVED)


def _mapped(model: Any, tensor: str) -> str | None:
    """The tensor's name in vLLM's model; None where the model does not want it."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return tensor
    name: str | None = (getattr(mapper, "map_name", None) or mapper._map_name)(tensor)
    return name


def _place(model: Any, modules: dict[str, Any], tensor: str, mapped: str, shape: tuple[int, int]) -> Place | None:
    """Where a tensor is; None where that cannot be said."""
    owner, _, parameter = mapped.rpartition(".")
    stem, dot, last = owner.rpartition(".")
    piece = tensor.rpartition(".")[0].rpartition(".")[2]
    for packed, pieces in getattr(model, "packed_modules_mapping", {}).items():
        layer = modules.get(f"{stem}{dot}{packed}")
        if layer is not None and piece in pieces and last in (piece, packed):
            return _in_layer(layer, tensor, parameter, shape, pieces.index(piece) if len(pieces) > 1 else None)
    return _in_layer(modules[owner], tensor, parameter, shape, None) if owner in modules else None


def _is_dropped(model: Any, modules: dict[str, Any], tensor: str, mapped: str) -> bool:
    """Return whether an unquantised linear layer was built without this weight or bias, or a norm or output layer without this bias."""
    from torch.nn import LayerNorm
    from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    owner, _, parameter = mapped.rpartition(".")
    stem, dot, last = owner.rpartition(".")
    packed = [name for name, pieces in getattr(model, "packed_modules_mapping", {}).items() if last in pieces]
    layers = [modules[name] for name in (owner, *(f"{stem}{dot}{name}" for name in packed)) if name in modules]

    def is_known(layer: Any) -> bool:
        if isinstance(layer, LinearBase):
            return parameter in ("weight", "bias") and isinstance(layer.quant_method, UnquantizedLinearMethod)
        return parameter == "bias" and isinstance(layer, (RMSNorm, GemmaRMSNorm, LayerNorm, ParallelLMHead))

    return any(is_known(layer) and getattr(layer, parameter, None) is None for layer in layers)


def _in_layer(module: Any, tensor: str, parameter: str, shape: tuple[int, int], piece: int | None) -> Place | None:
    """Where a tensor (or the `piece`-th of those that a layer is packed from) is in a layer, and which part of it this worker has."""
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    live = getattr(module, parameter, None)
    if live is None or _is_computed_by_its_loader(live):
        return None
    num_rows, num_columns = shape
    if isinstance(module, VocabParallelEmbedding) and parameter == "weight":
        indices = module.shard_indices
        if not isinstance(module.quant_method, UnquantizedEmbeddingMethod) or num_rows != module.org_vocab_size:
            return None
        rows = indices.org_vocab_start_index, indices.org_vocab_end_index
        kind: Kind = "linear" if isinstance(module, ParallelLMHead) else "embedding"
        return Place(tensor, kind, module, parameter, rows, (0, num_columns))
    sizes = list(getattr(module, "output_partition_sizes", []))
    if not sizes:
        same = (tuple(live.reshape(len(live), -1).shape) if live.ndim else (1, 1)) == shape
        return Place(tensor, "parameter", module, parameter, (0, num_rows), (0, num_columns)) if same else None
    if not isinstance(module.quant_method, UnquantizedLinearMethod) or live.ndim > 2:  # Mamba keeps its convolutions in linear layers
        return None
    if piece is None:
        num_live, live_row, replicas = sum(sizes), 0, 1
        if len(sizes) > 1 and num_live != num_rows:
            return None
    else:
        if piece >= len(sizes):
            return None
        num_live, live_row = sizes[piece], sum(sizes[:piece])
        replicas = getattr(module, "num_kv_head_replicas", 1) if piece else 1
    first_row = _first(module, num_live, num_rows, replicas)
    # a replicated layer has no partitions
    width = getattr(module, "input_size_per_partition", module.input_size) if parameter == "weight" else num_columns
    first_column = _first(module, width, num_columns, 1)
    if first_row is None or first_column is None or parameter not in ("weight", "bias"):
        return None
    rows, columns = (first_row, first_row + num_live), (first_column, first_column + width)
    return Place(tensor, "linear" if parameter == "weight" else "parameter", module, parameter, rows, columns, live_row)


def _is_computed_by_its_loader(live: Any) -> bool:
    """Return whether a function made for this parameter fills it: it may compute other values (Mamba's `A` is `-exp(A_log)`)."""
    name: str = getattr(getattr(live, "weight_loader", None), "__qualname__", "")
    return "<locals>" in name and not name.startswith("sharded_weight_loader.")


def _first(module: Any, num_live: int, num_whole: int, replicas: int) -> int | None:
    """Where this worker's share of a dimension begins; None where it is no whole share."""
    if num_live == num_whole:
        return 0
    first: int = module.tp_rank // replicas * num_live
    return first if num_live * module.tp_size // replicas == num_whole else None


def _sample(new: Any, old: Any, place: Place) -> tuple[Any, Any, bool]:
    """Rows and columns of a tensor to compare, and whether its old and new values differ there."""
    import torch

    rows = _spread(*place.rows, NUM_ROWS)
    columns = _spread(*place.columns, NUM_COLUMNS)
    if old is None or old.shape != new.shape:
        return rows, columns, False

    def difference(where: Any) -> Any:
        within = slice(*place.columns)
        return new[where, within].to(place.dtype) != old[where, within].to(place.dtype)

    differs = difference(rows)
    if not differs.any():
        step = max(NUM_ROWS, SEARCH_BYTES // max(1, new[:1].nbytes))
        differs = difference(slice(place.rows[0], min(place.rows[1], place.rows[0] + step)))
        found = differs.any(dim=1).nonzero().flatten()[:NUM_ROWS]
        if not len(found):
            return rows, columns, False
        rows, differs = found + place.rows[0], differs[found]
    most = differs.sum(dim=0).topk(len(columns)).indices + place.columns[0]
    # always as many, so that kernels are prepared for one shape only
    return rows, torch.cat([most[: len(columns) - 1], columns[-1:]]), True


@functools.cache
def _spread(start: int, stop: int, count: int) -> Any:
    """`count` whole numbers from the first to the last, evenly."""
    import torch

    return torch.unique(torch.linspace(start, stop - 1, min(count, stop - start)).round().long())
