"""The C library's heap while a CPU computes with a model.

PyTorch takes memory for every operation and frees it after the next. glibc asks the system for each large block (over 32 MiB at the latest)
and returns it at once, so that large batches touch new pages in every operation: a million for 7,000 tokens of a model of 135 million
weights in float32, an eighth of the time. Who computes therefore keeps what is freed.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_ANY = -1
"""As a size: no limit."""

_DEFAULT_TRIM_THRESHOLD = 128 * 1024
_DEFAULT_MMAP_MAX = 65536


def share_heap() -> None:
    """Has threads that begin from now on use the process's one heap where they can: those of threads end at 64 MiB."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def keep_freed() -> None:
    """What is freed from now on stays with the process and is used again, whatever its size; what it holds already is not touched."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _ANY)


def return_freed() -> None:
    """Gives back what `keep_freed` kept, and keeps no more."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> Any | None:
    """The C library, where it is glibc and the user has not tuned it."""
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
