"""A lock between processes, held through a file."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits for the lock, holds it inside the block; it ends with the process that holds it, however that ends.

    Some network file systems have no locks. There the block runs without: what it guards is also put in place atomically, so two
    processes then do the same work twice but spoil nothing.
    """
    with file.open("a") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
