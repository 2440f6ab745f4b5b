"""From a source to a checkpoint: brings it to this machine and checks all that can be checked before an engine starts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints import gguf, hub
from wdct_dist.checkpoints.digest import digest
from wdct_dist.checkpoints.model_config import ModelConfig, read_model_config
from wdct_dist.checkpoints.package import SCHEME, find_in_package
from wdct_dist.checkpoints.tokenizer import has_chat_template, require_tokenizer
from wdct_dist.checkpoints.types import Checkpoint, Kind, Source
from wdct_dist.checkpoints.weights import Weights, read_weights, weight_files
from wdct_dist.errors import CheckpointError
from wdct_dist.ids import file_sha256, stable_hash

TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def describe(source: Source, *, allow_pickle: bool, trust_remote_code: bool, cache: Path | None = None) -> Checkpoint:
    """The checkpoint that `source` names: on this machine, whole, and of a kind that an engine can load.

    Hub ids are downloaded, GGUF files converted (once; kept under `cache`, default `cache_root()`). Hashing reads all weights the first
    time. Raises `CheckpointError` beginning with the checkpoint's id.
    """
    cache = cache or cache_root()
    try:
        directory, kind = _materialise(source, allow_pickle, cache)
        config, weights = _check(source, directory, kind, allow_pickle, trust_remote_code)
        return Checkpoint(
            checkpoint_id=source.checkpoint_id,
            digest=digest(directory, cache),
            directory=directory,
            source=source.location if source.revision is None else f"{source.location}@{source.revision}",
            architecture=config.architecture,
            signature=_signature(directory, config, weights),
            size_bytes=weights.size_bytes,
            dtype=config.dtype or _prevailing_dtype(weights),
            max_position=config.max_position,
            has_chat_template=has_chat_template(directory),
            kind=kind,
        )
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {source.checkpoint_id!r}: {error}") from None
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {source.checkpoint_id!r}: {error.filename or source.location} cannot be read or written "
            f"({error.strerror or error}); check its permissions and the disk."
        ) from None


def _materialise(source: Source, allow_pickle: bool, cache: Path) -> tuple[Path, Kind]:
    """A directory on this machine, and how it came to be."""
    if source.location.startswith(SCHEME):
        path = find_in_package(source.location)
        return (path if path.is_dir() else gguf.dequantise(path, cache)), "package"
    path = Path(source.location)
    if not path.is_absolute():
        return hub.bring(source.location, source.revision, allow_pickle=allow_pickle), "hub"
    if path.is_dir():
        return path, "directory"
    if path.is_file():
        return gguf.dequantise(path, cache), "gguf"
    raise CheckpointError(f"{path}: there is no such directory or file; correct the path.")


def _check(source: Source, directory: Path, kind: Kind, allow_pickle: bool, trust_remote_code: bool) -> tuple[ModelConfig, Weights]:
    """Cheap checks first; all before a byte of the weights is hashed."""
    if kind == "hub" and not weight_files(directory) and hub.offers_pickles_only(source.location, directory):
        raise CheckpointError(
            f"`{source.location}`: the hub has its weights pickled only (.bin, .pt), and loading a pickle can run code; allowed are "
            "*.safetensors files. Take a revision that has them, or, where you trust the origin, set `engine.allow_pickle: true`."
        )
    weights = read_weights(directory, allow_pickle=allow_pickle)
    config = read_model_config(directory)
    if config.custom_code and not trust_remote_code:
        raise CheckpointError(
            f"{directory}: needs Python code of its own ({', '.join(config.custom_code)}); allowed are models that transformers "
            "has itself. Read that code, and where you trust it set `engine.trust_remote_code: true`."
        )
    require_tokenizer(directory, custom_code=bool(config.custom_code))
    return config, weights


def _signature(directory: Path, config: ModelConfig, weights: Weights) -> str:
    """Stable hash of all that an engine is built from; a live engine can only take weights of the same names, shapes and dtypes."""
    tensors = [(tensor.name, list(tensor.shape), tensor.dtype) for tensor in weights.tensors]
    code = [(file.name, file_sha256(file)) for file in sorted(directory.glob("*.py"))] if config.custom_code else []
    return stable_hash([config.decisive, config.dtype, code, tensors])


def _prevailing_dtype(weights: Weights) -> str:
    """The dtype of most of the bytes."""
    num_bytes: Counter[str] = Counter()
    for tensor in weights.tensors:
        num_bytes[tensor.dtype] += tensor.num_bytes
    dtype = num_bytes.most_common(1)[0][0]
    return TORCH_DTYPES.get(dtype, dtype.lower())
