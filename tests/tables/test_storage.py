"""A file is whole or is not there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.errors import RunDirError, StorageError
from wdct_dist.tables.storage import TEMPORARY, Store, is_full


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    return store


def test_what_is_written_is_read_back_and_listed(store: Store) -> None:
    store.write("answers/b.arrow", b"two")
    store.write("answers/a.arrow", b"one")
    assert store.names("answers") == ["answers/a.arrow", "answers/b.arrow"]
    assert store.read("answers/a.arrow") == b"one"


def test_a_refused_write_leaves_the_old_file_and_no_rest(store: Store, files_up_to: Callable[[int], Any]) -> None:
    store.write("answers/a.arrow", b"old")
    with pytest.raises(StorageError, match="no space left"), files_up_to(65536):
        store.write("answers/a.arrow", b"x" * 100_000)
    assert store.read("answers/a.arrow") == b"old"
    assert store.local is not None
    assert list(store.local.rglob(f"{TEMPORARY}*")) == []


def test_a_refused_stream_leaves_nothing(store: Store, files_up_to: Callable[[int], Any]) -> None:
    with pytest.raises(StorageError) as caught, files_up_to(65536), store.writing("prompts.arrow") as stream:
        stream.write(b"x" * 100_000)
    assert is_full(caught.value)
    assert store.names("") == []


def test_a_stream_that_is_left_by_an_error_leaves_nothing(store: Store) -> None:
    def write_half() -> None:
        with store.writing("prompts.arrow") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert store.names("") == []


def test_what_a_killed_writer_left_is_never_listed_and_swept(store: Store) -> None:
    assert store.local is not None
    left = store.local / "answers" / f"{TEMPORARY}123"
    left.write_bytes(b"half")
    assert store.names("answers") == []
    store.sweep()
    assert not left.exists()


def test_a_full_disk_is_told_from_other_errors() -> None:
    assert is_full(OSError(errno.ENOSPC, "no space"))
    assert not is_full(OSError(errno.EIO, "input/output error"))


@pytest.mark.parametrize("uri", ["ftp://host/x", "nonsense://x"])
def test_a_uri_that_nobody_reads_is_bad_input(uri: str) -> None:
    with pytest.raises(RunDirError, match="not a URI that pyarrow reads"):
        Store(uri)
