from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints.node_cache import Lease, NodeCache
from wdct_dist.errors import CheckpointError

HOLD = """
import sys
from pathlib import Path
from wdct_dist.checkpoints.node_cache import NodeCache
lease = NodeCache(Path(sys.argv[1]), 100).lease(sys.argv[2], 40, lambda directory: (directory / "file").write_bytes(b"x" * 40))
print("held", flush=True)
sys.stdin.read()
"""


def writing(num_bytes: int) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "file").write_bytes(b"x" * num_bytes)

    return write


def fail(directory: Path) -> None:
    (directory / "half").write_text("half")
    raise CheckpointError("broken off")


def names(root: Path) -> set[str]:
    return {entry.name for entry in root.iterdir() if entry.is_dir()}


def keep(disk: NodeCache, name: str, num_bytes: int = 40) -> None:
    """Used once and let go; a second later than whatever was used before."""
    disk.lease(name, num_bytes, writing(num_bytes)).close()
    latest = max((lock.stat().st_mtime for lock in disk.root.glob("*.lock")), default=0.0)
    os.utime(disk.root / f"{name}.lock", (latest + 1, latest + 1))


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    disk = NodeCache(tmp_path / "node")
    with disk.lease("a", 3, writing(3)) as lease:
        assert lease.directory == tmp_path / "node" / "a"
    with disk.lease("a", 3, fail) as again:
        assert (again.directory / "file").read_bytes() == b"xxx"


def test_nothing_is_left_of_what_broke_off(tmp_path: Path) -> None:
    disk = NodeCache(tmp_path)
    with pytest.raises(CheckpointError, match="broken off"):
        disk.lease("a", 3, fail)
    assert names(tmp_path) == set()
    with disk.lease("a", 3, writing(3)) as lease:
        assert os.listdir(lease.directory) == ["file"]


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    disk = NodeCache(tmp_path, 100)
    keep(disk, "a")
    keep(disk, "b")
    keep(disk, "a")
    keep(disk, "c")
    assert names(tmp_path) == {"a", "c"}


def test_what_is_in_use_stays_and_the_newcomer_is_refused_with_the_figures(tmp_path: Path) -> None:
    disk = NodeCache(tmp_path, 100)
    with disk.lease("a", 40, writing(40)), disk.lease("b", 40, writing(40)):
        with pytest.raises(CheckpointError, match="do not fit") as raised:
            disk.lease("c", 40, writing(40))
        assert names(tmp_path) == {"a", "b"}
    assert "Raise cache.max_gib, make room, or set WDCT_CACHE to a larger disk" in str(raised.value)
    keep(disk, "c")
    assert "c" in names(tmp_path)


def test_what_another_process_uses_stays_until_that_process_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), "theirs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    disk = NodeCache(tmp_path, 100)
    os.utime(tmp_path / "theirs.lock", (0, 0))
    keep(disk, "a")
    keep(disk, "b")
    assert names(tmp_path) == {"theirs", "b"}
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    keep(disk, "c")
    assert names(tmp_path) == {"b", "c"}


def test_what_is_being_made_counts_with_all_that_was_set_aside_for_it(tmp_path: Path) -> None:
    disk = NodeCache(tmp_path, 100)
    under_way, go_on = threading.Event(), threading.Event()

    def slowly(directory: Path) -> None:
        under_way.set()
        assert go_on.wait(30)

    maker = threading.Thread(target=lambda: disk.lease("slow", 70, slowly).close())
    maker.start()
    assert under_way.wait(30)
    with pytest.raises(CheckpointError, match="do not fit"):
        disk.lease("a", 40, writing(40))
    go_on.set()
    maker.join()
    assert "slow" in names(tmp_path)


def test_remains_of_a_killed_maker_are_removed(tmp_path: Path) -> None:
    (tmp_path / "dead.part-90-x").mkdir()
    keep(NodeCache(tmp_path, 100), "a")
    assert names(tmp_path) == {"a"}


def test_two_who_want_the_same_make_it_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(directory: Path) -> None:
        made.append(directory)
        writing(3)(directory)

    threads = [threading.Thread(target=lambda: NodeCache(tmp_path).lease("a", 3, make).close()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_who_waits_for_it_gets_it_while_others_have_it_in_use(tmp_path: Path) -> None:
    leases: list[Lease] = []

    def slowly(directory: Path) -> None:
        time.sleep(0.02)  # so that the others wait for it
        writing(3)(directory)

    def lease_all() -> None:
        for number in range(10):
            leases.append(NodeCache(tmp_path).lease(f"checkpoint-{number}", 3, slowly))

    threads = [threading.Thread(target=lease_all, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(leases) == 80
    for lease in leases:
        lease.close()
