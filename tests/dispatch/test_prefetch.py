from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints import object_store
from wdct_dist.checkpoints.object_store import Prefix
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.prefetch import Prefetch, available_bytes, in_page_cache
from wdct_dist.dispatch.scheduler import Load, Run, Scheduler


def checkpoint_in(directory: Path) -> Checkpoint:
    origin = Source("next", str(directory))
    return Checkpoint("next", "d" * 64, directory, str(directory), "L", "s", 0, "float32", None, True, "directory", origin)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "model-1.safetensors").write_bytes(b"x" * 1000)
    (made / "model-2.safetensors").write_bytes(b"x" * 500)
    (made / "optimizer.pt").write_bytes(b"x" * 7000)
    return made


def forget(directory: Path) -> None:
    """Has the system drop the weights from its page cache; skips where it cannot."""
    drop(directory)
    scratch = directory / "scratch.safetensors"
    scratch.write_bytes(b"x")
    drop(directory)
    time.sleep(0.1)  # until another core lets go of what was just written
    drop(directory)
    # another file, since looking has Linux begin to read
    with scratch.open("rb") as stream:
        if in_page_cache(stream.fileno(), 0, 1):
            pytest.skip("this file system keeps its files in memory")
    scratch.unlink()


def drop(directory: Path) -> None:
    for file in directory.glob("*.safetensors"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prefetched(directory: Path) -> int:
    prefetch = Prefetch()
    prefetch.start(checkpoint_in(directory), max_gib=None, allow_pickle=False)
    assert prefetch.wait(300)
    prefetch.close()
    return prefetch.num_bytes_read


def test_the_weights_and_nothing_else_are_read_ahead(directory: Path) -> None:
    forget(directory)
    assert prefetched(directory) == 1500


def test_what_is_in_the_page_cache_is_not_read_again(directory: Path) -> None:
    forget(directory)
    (directory / "model-2.safetensors").read_bytes()
    with (directory / "model-2.safetensors").open("rb") as stream:
        if not in_page_cache(stream.fileno(), 0, 1):
            pytest.skip("this file system does not say what is in memory")
    assert prefetched(directory) == 1000


def test_nothing_is_read_ahead_where_memory_is_short(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wdct_dist.dispatch.prefetch.available_bytes", lambda: 2000)
    prefetch = Prefetch()
    prefetch.start(checkpoint_in(directory), max_gib=None, allow_pickle=False)
    assert prefetch.wait(300)
    assert prefetch.num_bytes_read == 0


def test_a_checkpoint_that_cannot_be_had_is_left_for_the_engine_to_meet(tmp_path: Path) -> None:
    prefetch = Prefetch()
    prefetch.start(checkpoint_in(tmp_path / "gone"), max_gib=None, allow_pickle=False)
    assert prefetch.wait(300)
    assert prefetch.num_bytes_read == 0


def test_what_several_engines_of_a_node_want_is_brought_once_and_read_once(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(directory)
    prefix = object_store.look(directory.as_uri())
    outlined = tmp_path / "outline"
    outlined.mkdir()
    object_store.outline(prefix, outlined)
    digest = object_store.prefix_digest(prefix, outlined)
    origin = Source("next", prefix.uri)
    checkpoint = Checkpoint(
        "next", digest, tmp_path / "none", prefix.uri, "L", "s", 1500, "float32", None, True, "object store", origin, files_bytes=1500
    )
    brought: list[Path] = []

    def bring(found: Prefix, target: Path, really: Callable[[Prefix, Path], None] = object_store.bring) -> None:
        brought.append(target)
        time.sleep(0.1)  # so that all of them want it meanwhile
        really(found, target)
        drop(target)

    monkeypatch.setattr(object_store, "bring", bring)
    several = [Prefetch() for _ in range(4)]
    for one in several:
        one.start(checkpoint, max_gib=None, allow_pickle=False)
    assert all(one.wait(300) for one in several)
    assert len(brought) == 1
    assert sorted(one.num_bytes_read for one in several) == [0, 0, 0, 1500]
    for one in several:
        one.close()


def test_another_engine_reads_it_where_the_first_one_has_gone_on(directory: Path, tmp_path: Path) -> None:
    first, second = Prefetch(), Prefetch()
    first.start(checkpoint_in(directory), max_gib=None, allow_pickle=False)
    assert first.wait(300)
    first.start(checkpoint_in(tmp_path / "gone"), max_gib=None, allow_pickle=False)
    assert first.wait(300)
    forget(directory)
    second.start(checkpoint_in(directory), max_gib=None, allow_pickle=False)
    assert second.wait(300)
    assert second.num_bytes_read == 1500
    second.close()
    first.close()


def test_available_memory_is_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   3 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 3072
    assert available_bytes(tmp_path / "none") == 0


def units(*names: str) -> list[Unit]:
    return [Unit(name, name * 8, "direct", 0, start, start + 1) for name in names for start in range(3)]


def test_what_comes_next_is_what_the_place_is_then_given() -> None:
    scheduler = Scheduler(units("a", "b"), units_in_flight=1)
    assert scheduler.next(0) == Load("a")
    assert scheduler.upcoming(0) == "b"
    while isinstance(action := scheduler.next(0), Run):
        assert scheduler.upcoming(0) == "b"
        scheduler.done(0, action.unit)
    assert action == Load("b")
    assert scheduler.upcoming(0) is None


def test_nothing_comes_next_after_a_stop() -> None:
    scheduler = Scheduler(units("a", "b"))
    assert scheduler.next(0) == Load("a")
    scheduler.stop()
    assert scheduler.upcoming(0) is None
