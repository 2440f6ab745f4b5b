"""What is freed stays with the process while an engine wants it so: in processes of their own, since the C library is the process's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

BLOCK = 48 * 2**20
ROUNDS = 20
PAGES = BLOCK // os.sysconf("SC_PAGE_SIZE")

PROGRAM = f"""
import ctypes, json, resource, sys, threading
from wdct_dist import host_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = libc.memset.argtypes = None
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def step():
    block = libc.malloc({BLOCK})
    libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t({BLOCK}))
    libc.free(ctypes.c_void_p(block))

def work():
    step()
    begun = faults()
    for _ in range({ROUNDS}):
        step()
    found["faults"] = faults() - begun

found = {{}}
if "share" in sys.argv:
    host_memory.share_heap()
if "keep" in sys.argv:
    host_memory.keep_freed()
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
found["kept"] = resident() - before
host_memory.return_freed()
found["left"] = resident() - before
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc")


def measure(*words: str, **environment: str) -> dict[str, int]:
    untuned = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True, env={**untuned, **environment}
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_the_c_library_alone_touches_new_pages_each_time() -> None:
    found = measure()
    assert found["faults"] > 0.9 * ROUNDS * PAGES
    assert found["kept"] < 0.1 * PAGES


def test_what_a_thread_frees_is_used_again_and_given_back_in_the_end() -> None:
    found = measure("share", "keep")
    assert found["faults"] < 0.1 * PAGES
    assert found["kept"] > 0.9 * PAGES
    assert found["left"] < 0.1 * PAGES


def test_what_the_user_has_tuned_is_left_alone() -> None:
    found = measure("share", "keep", MALLOC_TOP_PAD_="131072")
    assert found["faults"] > 0.9 * ROUNDS * PAGES
