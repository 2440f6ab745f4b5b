"""From a source to a checkpoint: brings it to this machine and checks all that can be checked before an engine starts."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints import hub, object_store
from wdct_dist.checkpoints.adapter import CONFIG as ADAPTER_CONFIG
from wdct_dist.checkpoints.adapter import (
    Adapter,
    adapter_digest,
    find_changes,
    has_own_tokenizer,
    is_adapter,
    merged_files,
    read_adapter,
)
from wdct_dist.checkpoints.digest import digest, stamp
from wdct_dist.checkpoints.materialise import materialise
from wdct_dist.checkpoints.model_config import ModelConfig, read_model_config
from wdct_dist.checkpoints.node_copy import directory_of, on_this_node
from wdct_dist.checkpoints.sharing import highest_rank, why_merged
from wdct_dist.checkpoints.sources import resolve_base
from wdct_dist.checkpoints.tensor_check import require_all_tensors
from wdct_dist.checkpoints.tokenizer import has_chat_template, require_tokenizer
from wdct_dist.checkpoints.types import Checkpoint, Kind, Source
from wdct_dist.checkpoints.weights import Weights, read_weights, weight_files
from wdct_dist.errors import BadInput, CheckpointError
from wdct_dist.ids import file_sha256, stable_hash

NUM_AT_ONCE = 4
"""Directories described at a time: hashing leaves Python's lock free."""

TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def describe(source: Source, *, allow_pickle: bool, trust_remote_code: bool, cache: Path | None = None) -> Checkpoint:
    """The checkpoint that `source` names: whole, and of a kind that an engine can load.

    Hub ids are downloaded, GGUF files converted (once; kept under `cache`, default `cache_root()`). Hashing reads all weights the first
    time. Of a prefix in an object store only headers and settings are read; `on_this_node` brings the rest.
    Raises `CheckpointError` beginning with the checkpoint's id.
    """
    try:
        return _describe(source, allow_pickle, trust_remote_code, cache or cache_root())
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {source.checkpoint_id!r}: {error}") from None


def describe_all(sources: Sequence[Source], *, allow_pickle: bool, trust_remote_code: bool) -> list[Checkpoint | CheckpointError]:
    """As `describe`, of each source; or why it cannot be, without its id.

    Directories are described side by side; what is brought, converted or merged takes network, memory and disk, and is so in turn.
    """

    def one(source: Source) -> Checkpoint | CheckpointError:
        try:
            return _describe(source, allow_pickle, trust_remote_code, cache_root())
        except CheckpointError as error:
            return error

    pool = ThreadPoolExecutor(NUM_AT_ONCE, initializer=_step_back)
    try:
        running = {source: pool.submit(one, source) for source in sources if _is_at_hand(source)}
        return [running[source].result() if source in running else one(source) for source in sources]
    finally:
        pool.shutdown(cancel_futures=True)


def _step_back() -> None:
    """Lets other work come before this thread's (and those that it starts): Ray starts while weights are hashed, and has more to follow."""
    with contextlib.suppress(OSError, AttributeError):  # Linux has a priority a thread, others need not
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _is_at_hand(source: Source) -> bool:
    """Whether the source is a directory here that an engine could load as it is."""
    directory = source.location
    return os.path.isabs(directory) and os.path.isdir(directory) and not os.path.isfile(os.path.join(directory, ADAPTER_CONFIG))


def _describe(source: Source, allow_pickle: bool, trust_remote_code: bool, cache: Path) -> Checkpoint:
    describe_one = _describe_stored if source.location.startswith(object_store.SCHEMES) else _describe_local
    try:
        return describe_one(source, allow_pickle, trust_remote_code, cache)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or source.location} cannot be read or written ({error.strerror or error}); "
            "check its permissions and the disk."
        ) from None


def _describe_local(source: Source, allow_pickle: bool, trust_remote_code: bool, cache: Path) -> Checkpoint:
    directory, kind = materialise(source, allow_pickle, cache)
    if is_adapter(directory):
        return _describe_adapter(source, directory, allow_pickle, trust_remote_code, cache)
    if source.base is not None:
        raise CheckpointError(f"{directory}: is no adapter, so it has no `base`; leave the base out.")
    config, weights = _check(source, directory, kind, allow_pickle, trust_remote_code)
    before = stamp(directory) if kind == "directory" else ""
    return replace(_checkpoint(source, kind, directory, config, weights, digest(directory, cache)), stamp=before)


def _describe_adapter(source: Source, directory: Path, allow_pickle: bool, trust_remote_code: bool, cache: Path) -> Checkpoint:
    """From headers, the base's description and the adapter's files; it is merged where and when a node needs it."""
    adapter = read_adapter(directory)
    named = source.base or _stated_base(adapter)
    base = describe(named, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, cache=cache)
    with on_this_node(base, max_gib=None, allow_pickle=allow_pickle, cache=cache) as lease:
        changes = find_changes(adapter, lease.directory)
        files_bytes = sum(file.stat().st_size for file in merged_files(directory, lease.directory))
    identity = adapter_digest(base.digest, directory, cache)
    because = why_merged(adapter, changes)
    return replace(
        base,
        checkpoint_id=source.checkpoint_id,
        digest=identity,
        directory=directory_of(identity, cache),
        source=f"{source.location}{f'@{source.revision}' if source.revision else ''} over {base.source}",
        has_chat_template=has_chat_template(directory) if has_own_tokenizer(directory) else base.has_chat_template,
        kind="adapter",
        origin=source,
        base=base,
        files_bytes=files_bytes,
        adapter_rank=0 if because else highest_rank(changes),
        merged_because=because,
        stamp="",  # the base's own; what is merged lies in the node's cache
    )


def _stated_base(adapter: Adapter) -> Source:
    """The base that the adapter was trained on, where its name still leads somewhere."""
    if adapter.base_name is None:
        raise CheckpointError(f"{adapter.directory}: a LoRA adapter that does not state its base; give it as `base`: {{path: …, base: …}}.")
    try:
        return resolve_base(adapter.base_name, adapter.base_revision, Path.cwd())
    except BadInput as error:
        raise CheckpointError(
            f"{adapter.directory}: a LoRA adapter of a base that is not found here: {error} Give the base as `base`: {{path: …, base: …}}."
        ) from None


def _describe_stored(source: Source, allow_pickle: bool, trust_remote_code: bool, cache: Path) -> Checkpoint:
    """From headers and settings alone; `directory` is where it will be once a node needs it."""
    if source.base is not None:
        raise CheckpointError(f"{source.location}: an adapter in an object store is not merged from there; copy it to a directory.")
    prefix = object_store.look(source.location)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="outline-") as folder:
        outlined = Path(folder)
        object_store.outline(prefix, outlined)
        try:
            config, weights = _check(source, outlined, "object store", allow_pickle, trust_remote_code)
            identity = object_store.prefix_digest(prefix, outlined)
            checkpoint = _checkpoint(source, "object store", outlined, config, weights, identity)
        except CheckpointError as error:
            # a user knows the prefix, not the place where its outline was for a moment
            raise CheckpointError(str(error).replace(folder, source.location.partition("?")[0].rstrip("/"))) from None
    return replace(checkpoint, directory=directory_of(identity, cache), files_bytes=prefix.size_bytes)


def _checkpoint(source: Source, kind: Kind, directory: Path, config: ModelConfig, weights: Weights, identity: str) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=source.checkpoint_id,
        digest=identity,
        directory=directory,
        source=source.location if source.revision is None else f"{source.location}@{source.revision}",
        architecture=config.architecture,
        signature=_signature(directory, config, weights),
        size_bytes=weights.size_bytes,
        dtype=config.dtype or _prevailing_dtype(weights),
        max_position=config.max_position,
        has_chat_template=has_chat_template(directory),
        kind=kind,
        origin=source,
    )


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
    require_all_tensors(directory, config.architecture, weights)
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
