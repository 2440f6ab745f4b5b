"""What a process keeps of the memory that it frees, seen in the pages that blocks of more than glibc's own limit touch anew."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

BLOCK = 48 * 2**20
ROUNDS = 20
PAGES = BLOCK // os.sysconf("SC_PAGE_SIZE")
"""Of one block."""


def measured_in_a_process(program: str, *words: str, **environment: str) -> dict[str, int]:
    """What a program prints last, as JSON; in a process of its own, since the heap is the process's."""
    untuned = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
        env={**untuned, **environment},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def new_pages() -> int:
    """Page faults of this thread, which takes a block and frees it 20 times, behind a first time that does not count."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p

    def take_and_free() -> None:
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(BLOCK)))
        library.memset(block, 1, ctypes.c_size_t(BLOCK))
        library.free(block)

    take_and_free()
    begun = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(ROUNDS):
        take_and_free()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - begun


def resident_pages() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
