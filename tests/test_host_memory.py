"""What is freed stays with the process while an engine wants it so. That engines and trainings do is tested where they are."""

from __future__ import annotations

import platform

import pytest

from tests.heap import PAGES, ROUNDS, measured_in_a_process

PROGRAM = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from tests.heap import new_pages, resident_pages
from wdct_dist import host_memory

if "share" in sys.argv:
    host_memory.share_heap()
if "keep" in sys.argv:
    host_memory.keep_freed()
before = resident_pages()
found = {"faults": ThreadPoolExecutor(1).submit(new_pages).result(), "kept": resident_pages() - before}
host_memory.return_freed()
print(json.dumps(found | {"left": resident_pages() - before}))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc")


def test_the_c_library_alone_touches_new_pages_each_time() -> None:
    found = measured_in_a_process(PROGRAM)
    assert found["faults"] > 0.9 * ROUNDS * PAGES
    assert found["kept"] < 0.1 * PAGES


def test_what_a_thread_frees_is_used_again_and_given_back_in_the_end() -> None:
    found = measured_in_a_process(PROGRAM, "share", "keep")
    assert found["faults"] < 0.1 * PAGES
    assert found["kept"] > 0.9 * PAGES
    assert found["left"] < 0.1 * PAGES


def test_what_the_user_has_tuned_is_left_alone() -> None:
    found = measured_in_a_process(PROGRAM, "share", "keep", MALLOC_TOP_PAD_="131072")
    assert found["faults"] > 0.9 * ROUNDS * PAGES
