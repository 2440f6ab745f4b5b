"""This node's disk for checkpoints that can be made again, with a limit: brought from an object store, merged from an adapter.

    ROOT/NAME/                     whole, or not there
    ROOT/NAME.part-BYTES-RANDOM/   being made; BYTES are set aside for it
    ROOT/NAME.lock                 held with others by whoever uses NAME, alone by whoever makes or removes it; its
                                   modification time is the last use
    ROOT/NAME.making.lock          held alone by whoever is to make NAME: who waits for that waits for nobody who uses it

What was used longest ago goes first, and nothing that any process on this node has in use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from wdct_dist.checkpoints.file_lock import hold_shared, locked, locked_if_free
from wdct_dist.durable import sync
from wdct_dist.errors import CheckpointError

PART = ".part-"


@dataclass(slots=True)
class Lease:
    """A directory on this node, safe from removal until `close` (or the end of the process)."""

    directory: Path
    _held: IO[str] | None = None

    def close(self) -> None:
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class NodeCache:
    root: Path
    max_bytes: int | None = None
    """Limit of all directories together; None: what the disk has free."""

    def lease(self, name: str, size_bytes: int, make: Callable[[Path], None]) -> Lease:
        """The directory NAME, made by `make` (into an empty one) where it is not there; whoever comes second waits.

        Raises `CheckpointError` where `size_bytes` do not fit, and whatever `make` raises; nothing is left then.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        directory, lock = self.root / name, self._lock(name)
        while True:
            held = hold_shared(lock)
            if directory.is_dir():
                os.utime(lock)
                return Lease(directory, held)
            held.close()
            with locked(self.root / f"{name}.making.lock"):
                if not directory.is_dir():
                    with locked(lock), self._room(name, size_bytes) as part:
                        make(part)
                        _sync(part)
                        with contextlib.suppress(FileExistsError):  # on a file system without locks another may have been first
                            part.rename(directory)

    def _lock(self, name: str) -> Path:
        return self.root / f"{name}.lock"

    @contextlib.contextmanager
    def _room(self, name: str, size_bytes: int) -> Iterator[Path]:
        """An empty directory beside the others, with `size_bytes` set aside for it; gone afterwards unless it was renamed."""
        with locked(self.root / "room.lock"):
            self._remove_remains(name)
            self._make_room(name, size_bytes)
            part = Path(tempfile.mkdtemp(dir=self.root, prefix=f"{name}{PART}{size_bytes}-"))
        try:
            part.chmod(0o755)  # mkdtemp makes it private; other users of a shared cache read it too
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _remove_remains(self, mine: str) -> None:
        """Parts of processes that were killed; `mine` is locked by the caller."""
        for part in self.root.glob(f"*{PART}*"):
            name = part.name.partition(PART)[0]
            with contextlib.nullcontext(True) if name == mine else locked_if_free(self._lock(name)) as free:
                if free:
                    shutil.rmtree(part, ignore_errors=True)

    def _make_room(self, name: str, size_bytes: int) -> None:
        sizes = {entry: _size_bytes(entry) for entry in self.root.iterdir() if entry.is_dir()}
        by_use = sorted((entry for entry in sizes if PART not in entry.name), key=lambda entry: _last_use(self._lock(entry.name)))
        while (lacking := self._lacking_bytes(sizes, size_bytes)) > 0:
            if not by_use:
                limit = f"cache.max_gib is {self.max_bytes / 2**30:g}" if self.max_bytes is not None else "its disk is full"
                raise CheckpointError(
                    f"{self.root}: {size_bytes / 2**30:.2f} GiB for {name[:12]} do not fit, {lacking / 2**30:.2f} GiB are lacking "
                    f"({limit}; {sum(sizes.values()) / 2**30:.2f} GiB are in use). Raise cache.max_gib, make room, or set WDCT_CACHE "
                    "to a larger disk."
                )
            oldest = by_use.pop(0)
            with locked_if_free(self._lock(oldest.name)) as free:
                if free:
                    shutil.rmtree(oldest, ignore_errors=True)
                    del sizes[oldest]

    def _lacking_bytes(self, sizes: dict[Path, int], wanted: int) -> int:
        free = shutil.disk_usage(self.root).free
        of_limit = sum(sizes.values()) + wanted - self.max_bytes if self.max_bytes is not None else 0
        return max(of_limit, wanted - free)


def _size_bytes(directory: Path) -> int:
    """What it holds; what is set aside where it is being made."""
    if PART in directory.name:
        return int(directory.name.partition(PART)[2].partition("-")[0])
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _last_use(lock: Path) -> float:
    return lock.stat().st_mtime if lock.exists() else 0.0


def _sync(directory: Path) -> None:
    """Its files are on the disk before it has its name."""
    for file in directory.iterdir():
        sync(file)
