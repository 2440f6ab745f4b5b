"""Brings the next checkpoint's files to this node while an engine is busy with the present one.

From an object store, a hub or an adapter to the node's disk, then from disk into the page cache, as far as memory is free. Where
several engines of a node want the same, it is brought once and read once: whoever is first does it. It is a thread of the worker's
process that mostly waits for disk and network. Whatever goes wrong is not said here: the engine that then needs the checkpoint
meets it again, and says it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints.file_lock import locked_if_free
from wdct_dist.checkpoints.node_cache import Lease
from wdct_dist.checkpoints.node_copy import directory_of, on_this_node
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.errors import WdctError

PIECE_BYTES = 16 * 2**20
LOOK_EVERY_BYTES = 256 * 2**10
SHARE_OF_MEMORY = 0.5
"""Of what is available: more would push out what the present engine uses."""


class Prefetch:
    """One checkpoint at a time; what it brought stays on the disk until the next one, or `close`."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lease: Lease | None = None
        self._turn = contextlib.ExitStack()
        """Holds a lock while this process is the one of the node that has read the checkpoint."""
        self.num_bytes_read = 0
        """Brought into the page cache so far."""

    def start(self, checkpoint: Checkpoint, *, max_gib: float | None, allow_pickle: bool) -> None:
        """Begins, unless another one is still under way: that one is needed first."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._bring, args=(checkpoint, max_gib, allow_pickle), name="prefetch", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it is through."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def close(self) -> None:
        """Ends reading; a download under way ends with the process."""
        self._stop.set()
        if self._lease is not None:
            self._lease.close()
        self._turn.close()

    def _bring(self, checkpoint: Checkpoint, max_gib: float | None, allow_pickle: bool) -> None:
        with contextlib.suppress(WdctError, OSError):
            before, self._lease = self._lease, None
            if before is not None:
                before.close()
            self._turn.close()
            self._lease = on_this_node(checkpoint, max_gib=max_gib, allow_pickle=allow_pickle)
            if not self._is_first(checkpoint):
                return
            files = weight_files(self._lease.directory)
            if sum(file.stat().st_size for file in files) <= SHARE_OF_MEMORY * available_bytes():
                for file in files:
                    self._read(file)

    def _is_first(self, checkpoint: Checkpoint) -> bool:
        """Whether no other process of this node has read it ahead, or is about to."""
        # by the node's name: nodes may share a cache root, and have a page cache each
        lock = directory_of(f"{checkpoint.digest}.{platform.node()}.ahead", cache_root())
        lock.parent.mkdir(parents=True, exist_ok=True)
        return self._turn.enter_context(locked_if_free(lock))

    def _read(self, file: Path) -> None:
        # reading, not posix_fadvise(WILLNEED): Linux takes that as advice for the first few MiB of a file only
        buffer = bytearray(PIECE_BYTES)
        with file.open("rb", buffering=0) as stream:
            for start in range(0, os.fstat(stream.fileno()).st_size, PIECE_BYTES):
                if self._stop.is_set():
                    return
                if not in_page_cache(stream.fileno(), start, PIECE_BYTES):
                    stream.seek(start)
                    self.num_bytes_read += stream.readinto(buffer) or 0


def in_page_cache(file: int, start: int, num_bytes: int) -> bool:
    """Whether a piece of an open file is there already, as after hashing it: a look here and there costs 3 ms for 500 MB, and reading it
    150 ms or more of a core that an engine on CPUs computes with. False where the system does not say."""
    try:
        for place in range(start, start + num_bytes, LOOK_EVERY_BYTES):
            os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
    except (OSError, AttributeError):
        return False
    return True


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that can be had without swapping, page cache included; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
