"""Objects of a remote store, fetched once and kept on this machine's disk while they are of use.

One unnamed file holds them all: it is gone with the process, however that ends, and costs one file descriptor for any number of
objects. What is read back is mapped, so the memory is the page cache's.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref

import pyarrow as pa


class ObjectCache:
    """Bytes by name. Safe for several threads."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the cache
        weakref.finalize(self, self._file.close)
        self._size_bytes = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> pa.Buffer | None:
        """The object's bytes; None where they are not kept."""
        place = self._places.get(name)
        if place is None:
            return None
        offset, size = place
        # an empty file cannot be mapped
        return pa.py_buffer(mmap.mmap(self._file.fileno(), size, offset=offset, access=mmap.ACCESS_READ) if size else b"")

    def put(self, name: str, data: bytes | pa.Buffer) -> None:
        view = memoryview(data)
        with self._lock:
            # a mapping begins on a boundary of the page size
            offset = -(-self._size_bytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            end = offset
            while len(view):
                end += (written := os.pwrite(self._file.fileno(), view, end))
                view = view[written:]
            self._size_bytes = end
            self._places[name] = (offset, end - offset)

    def drop(self, name: str) -> None:
        """Forgets an object that has changed; its bytes are given back with the file."""
        self._places.pop(name, None)
