"""From a source to a directory on this machine, whatever the source is."""

from __future__ import annotations

from pathlib import Path

from wdct_dist.checkpoints import gguf, hub
from wdct_dist.checkpoints.package import SCHEME, find_in_package
from wdct_dist.checkpoints.types import Kind, Source
from wdct_dist.errors import CheckpointError


def materialise(source: Source, allow_pickle: bool, cache: Path) -> tuple[Path, Kind]:
    """The directory, and how it came to be: hub ids are downloaded, GGUF files converted. Raises `CheckpointError`."""
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
