"""A run's files on an object store: a real S3 server over HTTP."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wdct_dist.errors import RunDirError, StorageError
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.events import EventLog, read_events
from wdct_dist.tables.object_cache import ObjectCache
from wdct_dist.tables.storage import Store


@pytest.fixture
def store(s3_server: Any, s3_bucket: str) -> Store:
    store = Store(s3_server.uri(f"{s3_bucket}/run"))
    store.make_root()
    return store


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process puts its temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write_table(store: Store, name: str, values: list[int]) -> None:
    table = pa.table({"value": values})
    with store.writing(name) as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)


def test_what_is_written_is_read_back_and_listed(store: Store) -> None:
    assert store.local is None
    store.write("answers/b.arrow", b"two")
    store.write("answers/a.arrow", b"one")
    assert store.names("answers") == ["answers/a.arrow", "answers/b.arrow"]
    assert store.read("answers/a.arrow") == b"one"
    assert store.exists("answers/a.arrow")
    store.delete("answers/a.arrow")
    store.delete("answers/a.arrow")
    assert not store.exists("answers/a.arrow")
    assert store.names("nothing/here") == []
    with pytest.raises(FileNotFoundError):
        store.read("answers/a.arrow")


def test_a_stream_that_is_left_by_an_error_leaves_the_object_as_it_was(store: Store) -> None:
    store.write("prompts.arrow", b"whole")

    def write_half() -> None:
        with store.writing("prompts.arrow") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert store.read("prompts.arrow") == b"whole"


def test_a_stream_becomes_one_object_and_leaves_no_file_here(store: Store, scratch: Path) -> None:
    with store.writing("prompts.arrow") as stream:
        for piece in range(180):  # more than one part of a multipart upload (10 MiB)
            stream.write(bytes([piece]) * 65536)
    assert store.read("prompts.arrow") == b"".join(bytes([piece]) * 65536 for piece in range(180))
    with store.writing("empty") as stream:
        pass
    assert store.read("empty") == b""
    assert list(scratch.iterdir()) == []


def test_a_folder_inside_keeps_the_address_of_the_store(store: Store) -> None:
    store.write("noise/1/answers/a.arrow", b"one")
    inner = store.child("noise/1")
    assert inner.names("answers") == ["answers/a.arrow"]
    assert Store(inner.uri).read("answers/a.arrow") == b"one"


def test_a_local_folder_may_have_a_question_mark_in_its_name(tmp_path: Path) -> None:
    assert Store(str(tmp_path / "why?")).child("noise/1").local == tmp_path / "why?" / "noise" / "1"


def test_a_table_that_is_read_again_is_not_fetched_again(store: Store, s3_server: Any, scratch: Path) -> None:
    write_table(store, "scores/items.arrow", [1, 2, 3])
    first = read_table(store, "scores/items.arrow")
    s3_server.stop()
    try:
        assert read_table(store, "scores/items.arrow").equals(first)
    finally:
        s3_server.start()
    assert list(scratch.iterdir()) == []


def test_a_table_that_was_written_anew_is_fetched_anew(store: Store) -> None:
    for values in ([1, 2, 3], [4, 5]):
        write_table(store, "scores/items.arrow", values)
        assert read_table(store, "scores/items.arrow")["value"].to_pylist() == values
    store.delete("scores/items.arrow")
    with pytest.raises(StorageError, match=r"scores/items\.arrow cannot be read"):
        read_table(store, "scores/items.arrow")


def test_a_store_that_fails_for_a_while_is_tried_again(store: Store, outage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", outage)
    store.retry_s = 60
    outage.begin()
    store.write("answers/a.arrow", b"one")
    assert store.read("answers/a.arrow") == b"one"
    assert "Trying again for 60 s" in outage.getvalue()


def test_a_store_that_does_not_come_back_is_an_error_that_says_so(store: Store, s3_server: Any) -> None:
    s3_server.stop()
    try:
        with pytest.raises(StorageError, match=r"could not be listed: .*What was written before is safe"):
            store.names("answers")
    finally:
        s3_server.start()


def test_a_bucket_that_is_not_there_is_bad_input(s3_server: Any) -> None:
    with pytest.raises(RunDirError, match="'nowhere' not found"):
        Store(s3_server.uri("nowhere/run"), retry_s=60).make_root()


def test_events_of_two_sessions_are_one_log(store: Store) -> None:
    for name in ("first", "second"):
        log = EventLog(store)
        log.add(name)
        log.add("between uploads")
        log.flush()
    assert [event["event"] for event in read_events(store)] == ["first", "between uploads", "second", "between uploads"]


def num_open_in(folder: Path) -> int:
    """Files there that this process has open, without names too. Of other files its threads may open and close some at any time."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(os.readlink(link))
    return sum(name.startswith(f"{folder}/") for name in names)


def test_kept_bytes_come_back_as_they_were_from_one_unnamed_file(scratch: Path) -> None:
    cache = ObjectCache()
    objects = {f"{size}": os.urandom(size) for size in (0, 1, 4095, 4096, 4097, 100_000)}
    for name, data in objects.items():
        cache.put(name, data)
    assert {name: cache.get(name).to_pybytes() for name in objects} == objects
    cache.drop("1")
    assert cache.get("1") is None
    assert num_open_in(scratch) == 1
    assert list(scratch.iterdir()) == []
