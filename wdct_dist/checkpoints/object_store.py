"""Checkpoints under a prefix of an object store: what they are, without bringing their weights; and bringing them.

An object's version is its ETag (its time of change where a store has none). `outline` writes a directory in which every
file has its true size, the settings are whole, and of the weights only the headers are there: enough for every check of
`describe`, at the price of a few requests a checkpoint. It is thrown away then, so that no engine can take it for the model.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wdct_dist.checkpoints.digest import deciding_files
from wdct_dist.checkpoints.hub import NOT_NEEDED, SAFETENSORS, SETTINGS
from wdct_dist.checkpoints.safetensors_header import MAX_HEADER_BYTES
from wdct_dist.errors import CheckpointError, ConfigError
from wdct_dist.ids import file_sha256

SCHEMES = ("s3://", "gs://", "gcs://", "abfs://", "abfss://")
PIECE_BYTES = 8 * 2**20
NUM_THREADS = 4
"""Objects that are brought at once."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    path: str
    """As the store's file system spells it."""
    size_bytes: int
    version: str

    @property
    def has_weights(self) -> bool:
        return self.name.endswith(".safetensors")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What is under a prefix and counts for a checkpoint, as it was when it was looked at."""

    uri: str
    filesystem: Any
    objects: tuple[StoredObject, ...]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.objects)


def refuse_unfit(uri: str) -> None:
    """Raises `ConfigError` for a URI with a password (it would end up in the run's files), a glob, or a single file."""
    parts = urlsplit(uri)
    if parts.password is not None:
        raise ConfigError(
            f"checkpoints: `{parts.scheme}://…@{parts.hostname or ''}{parts.path}` carries a password, which would be written to the run "
            "directory; give credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)."
        )
    if "*" in uri or parts.path.lower().endswith(".gguf"):
        raise ConfigError(
            f"checkpoints: `{uri}` is a glob or a GGUF file; allowed in an object store are prefixes with *.safetensors files."
        )


def look(uri: str) -> Prefix:
    """Lists the prefix. Raises `CheckpointError` where it cannot be read or nothing is there."""
    from pyarrow import fs

    def list_objects() -> tuple[Any, list[Any]]:
        filesystem, root = fs.FileSystem.from_uri(uri)
        return filesystem, filesystem.get_file_info(fs.FileSelector(root.rstrip("/"), allow_not_found=True))

    filesystem, infos = _explained(uri, list_objects)
    wanted = [info for info in infos if info.type == fs.FileType.File and _counts(info.base_name)]
    if not wanted:
        raise CheckpointError(f"{uri}: nothing of a checkpoint is there ({len(infos)} other entries); correct the bucket or the prefix.")

    def to_object(info: Any) -> StoredObject:
        with filesystem.open_input_stream(info.path, compression=None) as stream:
            return StoredObject(info.base_name, info.path, info.size, _version(stream, info.mtime_ns))

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = _explained(uri, lambda: list(pool.map(to_object, wanted)))
    return Prefix(uri, filesystem, tuple(sorted(found, key=lambda entry: entry.name)))


def outline(prefix: Prefix, directory: Path) -> None:
    """Writes to `directory` all that can be known of the checkpoint without its weights; see the module's docstring."""
    _each(prefix, lambda entry: (_outline_weights if entry.has_weights else _download)(prefix, entry, directory / entry.name))


def prefix_digest(prefix: Prefix, outlined: Path) -> str:
    """As `digest.digest`, with size and version in place of the SHA-256 of weights; 64 hex digits.

    New weights under an old name always have another digest; the same weights may have several (an ETag depends on how they
    were uploaded), and are then evaluated once each.
    """
    by_name = {entry.name: entry for entry in prefix.objects}
    lines = []
    for file in deciding_files(outlined):
        entry = by_name[file.name]
        what = f"{entry.size_bytes} {entry.version}" if entry.has_weights else file_sha256(file)
        lines.append(f"{file.name}\0{what}\n")
    return hashlib.sha256("".join(["object store v1\n", *sorted(lines)]).encode()).hexdigest()


def bring(prefix: Prefix, directory: Path) -> None:
    """Writes the objects to `directory`, each proven to be the version that was looked at, and of its size.

    Raises `CheckpointError` where one has changed since, or ends early.
    """
    _each(prefix, lambda entry: _download(prefix, entry, directory / entry.name))


def _each(prefix: Prefix, action: Callable[[StoredObject], None]) -> None:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        _explained(prefix.uri, lambda: list(pool.map(action, prefix.objects)))


def _counts(name: str) -> bool:
    wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in (*SETTINGS, *SAFETENSORS))
    return wanted and not any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_NEEDED)


def _version(stream: Any, changed_ns: int | None) -> str:
    tag = (stream.metadata() or {}).get("ETag")
    return tag.decode().strip('"') if tag else f"changed {changed_ns}"


def _download(prefix: Prefix, entry: StoredObject, target: Path) -> None:
    with prefix.filesystem.open_input_stream(entry.path, compression=None) as stream, target.open("wb") as file:
        version = _version(stream, None)
        if not entry.version.startswith("changed ") and version != entry.version:
            raise CheckpointError(
                f"{entry.path}: has changed since it was looked at ({entry.version} is now {version}); evaluate it again."
            )
        for piece in _pieces(stream):
            file.write(piece)
    if target.stat().st_size != entry.size_bytes:
        raise CheckpointError(f"{entry.path}: {target.stat().st_size:,} bytes came of {entry.size_bytes:,}; try again.")


def _pieces(stream: Any) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


def _outline_weights(prefix: Prefix, entry: StoredObject, target: Path) -> None:
    with prefix.filesystem.open_input_file(entry.path) as source, target.open("wb") as file:
        length = source.read(8)
        header_bytes = min(int.from_bytes(length, "little"), MAX_HEADER_BYTES, entry.size_bytes)
        file.write(length + source.read(header_bytes))
        file.truncate(entry.size_bytes)  # the rest is a hole, which takes no room


def _explained(uri: str, action: Callable[[], Result]) -> Result:
    import pyarrow as pa

    try:
        return action()
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # this machine's disk
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{uri}: cannot be read ({reason}); correct the URI, or give credentials in the environment.") from None
