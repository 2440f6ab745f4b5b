"""Locks between processes, held through a file. They end with the process that holds them, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits for the lock and holds it inside the block, alone.

    Some network file systems have no locks. There the block runs without: what it guards is also put in place atomically, so two
    processes then do the same work twice but spoil nothing.
    """
    with file.open("a") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def hold_shared(file: Path) -> IO[str]:
    """Waits until nobody holds the lock alone, then holds it with others until what is returned is closed."""
    stream = file.open("a")
    with contextlib.suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


@contextlib.contextmanager
def locked_if_free(file: Path) -> Iterator[bool]:
    """Whether nobody held the lock; if so it is held inside the block, alone. False too where there are no locks."""
    with file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def is_held(file: Path) -> bool:
    """Whether a process holds the lock alone, as far as this machine sees; it is not taken. False where there is no such file."""
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
