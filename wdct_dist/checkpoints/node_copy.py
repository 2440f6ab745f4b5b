"""A described checkpoint on the node that is to load it: brought or made there where it is not.

`describe` runs where the driver is; engines run on any node, and each has a disk of its own.
"""

from __future__ import annotations

from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints import object_store
from wdct_dist.checkpoints.adapter import adapter_digest, merge, read_adapter
from wdct_dist.checkpoints.digest import digest, stamp
from wdct_dist.checkpoints.materialise import materialise
from wdct_dist.checkpoints.node_cache import Lease, NodeCache
from wdct_dist.checkpoints.sharing import copy_shared, shared_files
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.errors import CheckpointError

FOLDER = "node"
APART = "-apart"
"""Of an adapter's files beside those of its merged model."""
ANEW = "give the same command again to evaluate what is there now"


def on_this_node(checkpoint: Checkpoint, *, max_gib: float | None, allow_pickle: bool, cache: Path | None = None) -> Lease:
    """The directory from which an engine on this node loads `checkpoint`; it stays until the lease is closed.

    What is there is taken as it is: a directory in the node's cache is whole or not there. Raises `CheckpointError` beginning
    with the checkpoint's id where it cannot be had, is not what was described, or does not fit under `max_gib`.
    """
    cache = cache or cache_root()
    origin = checkpoint.origin
    try:
        if origin is None:
            return Lease(checkpoint.directory)
        if checkpoint.kind == "object store":
            return _brought(checkpoint, origin.location, _disk(cache, max_gib))
        if checkpoint.base is not None:
            with on_this_node(checkpoint.base, max_gib=max_gib, allow_pickle=allow_pickle, cache=cache) as base:
                return _merged(checkpoint, base.directory, materialise(origin, allow_pickle, cache)[0], cache, max_gib)
        if checkpoint.directory.is_dir():
            require_unchanged(checkpoint, cache=cache)
            return Lease(checkpoint.directory)
        directory = materialise(origin, allow_pickle, cache)[0]
        if digest(directory, cache) != checkpoint.digest:  # a branch of a hub that has moved on, another file under the same path
            raise CheckpointError(f"{origin.location}: is not on this node what was described; {ANEW}.")
        return Lease(directory)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {checkpoint.checkpoint_id!r}: {error}") from None


def require_unchanged(checkpoint: Checkpoint, *, cache: Path | None = None) -> None:
    """Raises `CheckpointError` where the directory of a described checkpoint is no longer what was described.

    A trainer may write to it while a sweep is on its way there, and new weights must not be recorded under the digest of the old ones.
    Only files of other sizes or times than at first are hashed again, as after a copy to another node.
    """
    if not checkpoint.stamp:
        return
    try:
        changed = stamp(checkpoint.directory) != checkpoint.stamp and digest(checkpoint.directory, cache) != checkpoint.digest
    except OSError as error:
        raise CheckpointError(f"{checkpoint.directory}: is no longer whole ({error}); {ANEW}.") from None
    if changed:
        raise CheckpointError(f"{checkpoint.directory}: has changed since it was described; {ANEW}.")


def apart_on_this_node(
    checkpoint: Checkpoint, base: Path, *, max_gib: float | None, allow_pickle: bool, cache: Path | None = None
) -> Lease:
    """What an engine that has the adapter's base, in `base`, needs to apply the adapter without merging. Raises as `on_this_node`."""
    cache = cache or cache_root()
    assert checkpoint.origin is not None, "an adapter"
    try:
        adapter = materialise(checkpoint.origin, allow_pickle, cache)[0]

        def make(directory: Path) -> None:
            _require_same(checkpoint, adapter, cache)
            copy_shared(adapter, base, directory)

        size_bytes = sum(file.stat().st_size for file in shared_files(adapter, base))
        return _disk(cache, max_gib).lease(f"{checkpoint.digest}{APART}", size_bytes, make)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {checkpoint.checkpoint_id!r}: {error}") from None


def _disk(cache: Path, max_gib: float | None) -> NodeCache:
    return NodeCache(cache / FOLDER, None if max_gib is None else int(max_gib * 2**30))


def directory_of(digest: str, cache: Path) -> Path:
    """Where the checkpoint of that digest is on every node with this cache root, once it is there."""
    return cache / FOLDER / digest


def _brought(checkpoint: Checkpoint, uri: str, disk: NodeCache) -> Lease:
    def bring(directory: Path) -> None:
        prefix = object_store.look(uri)
        object_store.bring(prefix, directory)
        if object_store.prefix_digest(prefix, directory) != checkpoint.digest:
            raise CheckpointError(f"{uri}: has changed since it was described; {ANEW}.")

    return disk.lease(checkpoint.digest, checkpoint.files_bytes, bring)


def _merged(checkpoint: Checkpoint, base: Path, adapter: Path, cache: Path, max_gib: float | None) -> Lease:
    def make(directory: Path) -> None:
        _require_same(checkpoint, adapter, cache)
        merge(read_adapter(adapter), base, directory)

    return _disk(cache, max_gib).lease(checkpoint.digest, checkpoint.files_bytes, make)


def _require_same(checkpoint: Checkpoint, adapter: Path, cache: Path) -> None:
    assert checkpoint.base is not None
    if adapter_digest(checkpoint.base.digest, adapter, cache) != checkpoint.digest:
        raise CheckpointError(f"{adapter}: has changed since it was described; {ANEW}.")
