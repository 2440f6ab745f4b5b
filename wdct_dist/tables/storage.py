"""Where a run directory's bytes go: a local path or any URI that `pyarrow.fs` reads.

A file is whole or is not there. Locally: written beside under a hidden name, synced, renamed, directory synced. On an object
store one write of the whole is whole by itself; pyarrow's stream is not, since whatever has been written when it is closed, by an
error too, becomes the object (26.0: no abort). The store is named by its URI, so that it can be opened on every node.

A store that fails is tried again for `retry_s`; a full disk is not.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from wdct_dist.durable import sync
from wdct_dist.errors import RunDirError, StorageError
from wdct_dist.tables.object_cache import ObjectCache

Result = TypeVar("Result")

TEMPORARY = ".tmp-"
"""Prefix of files under way; never read, swept away when a run is opened."""


PIECE_BYTES = 4 * 2**20

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
"""Between two tries; each pause is twice the one before."""


class Store:
    """The files under one root, by names relative to it such as `answers/x.arrow`.

    Raises `StorageError` where the store does not do what it is asked, for longer than `retry_s` (seconds).
    """

    def __init__(self, uri: str, retry_s: float = 0.0) -> None:
        self.uri = uri
        self.retry_s = retry_s
        self.local: Path | None = None
        self._kept: ObjectCache | None = None
        if "://" in uri and not uri.startswith("file://"):
            try:
                self._fs, self._root = fs.FileSystem.from_uri(uri)
                self._kept = ObjectCache()
            except (pa.ArrowInvalid, OSError, ValueError) as error:
                raise RunDirError(
                    f"run_dir: {uri} is not a URI that pyarrow reads ({error}); use a local path, s3://… or gs://…."
                ) from None
        else:
            self.local = Path(uri.removeprefix("file://")).expanduser().absolute()
            self._fs, self._root = fs.LocalFileSystem(), str(self.local)

    @property
    def location(self) -> str:
        """The absolute path or the URI of the root. It leads to the same files from every working directory."""
        return self.uri if self.local is None else str(self.local)

    def child(self, folder: str) -> Store:
        """The store of a folder inside this one."""
        head, question, query = self.uri.partition("?") if self.local is None else (self.uri, "", "")
        return Store(f"{head.rstrip('/')}/{folder}{question}{query}", self.retry_s)

    def path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def make_root(self) -> None:
        """Makes the root and its folders, and proves that they can be written."""
        try:
            for folder in ("", "answers", "scores"):
                self._fs.create_dir(self.path(folder), recursive=True)
            probe = f"{TEMPORARY}{uuid.uuid4().hex}"
            self.write(probe, b"probe")
            self.delete(probe)
        except (OSError, StorageError) as error:
            raise RunDirError(
                f"run_dir: {self.uri} cannot be written ({error}); choose another with run_dir=… or change its permissions."
            ) from None

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Writes the whole file `name`, replacing one that is there."""
        if self.local is not None:
            target = self.local / name
            self._patiently("written", name, lambda: _write_local(target, data))
            return
        self._patiently("written", name, lambda: self._put(name, data))
        self._forget(name)

    def append(self, name: str, data: bytes) -> None:
        """Appends to a local file, as logs are written; an object store cannot."""
        assert self.local is not None, "an object store cannot append"
        path = self.local / name

        def add() -> None:
            with path.open("ab") as stream:
                stream.write(data)

        self._patiently("written", name, add)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[pa.NativeFile]:
        """A stream into the file `name`, which appears whole when the block ends well and not at all when it does not.

        For an object store the stream goes to an unnamed local file first, and from there in one write.
        """
        if self.local is None:
            with self._explained("written", name), tempfile.TemporaryFile() as held, pa.PythonFile(held, "w") as stream:
                yield stream
                held.flush()
                size = held.tell()
                self.write(name, pa.py_buffer(mmap.mmap(held.fileno(), size, access=mmap.ACCESS_READ) if size else b""))
            return
        target = self.local / name
        beside = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        with self._explained("written", name):
            # a folder that somebody removed to have its files derived again
            target.parent.mkdir(exist_ok=True)
            try:
                with pa.OSFile(str(beside), "wb") as stream:
                    yield stream
                sync(beside)
                os.replace(beside, target)
                sync(target.parent)
            finally:
                beside.unlink(missing_ok=True)

    def read(self, name: str, *, keep: bool = False) -> bytes:
        """The bytes of the file `name` as it is now; raises `FileNotFoundError` where there is none.

        `keep`: it will be opened later, so an object's bytes are kept for that.
        """
        data: bytes = self._patiently("read", name, lambda: self._get(name))
        if keep and self._kept is not None:
            self._kept.put(name, data)
        return data

    def open(self, name: str) -> pa.NativeFile:
        """The file `name` for random access, mapped into memory.

        An object is fetched once; opened again it is the same bytes, until it is written or deleted through this store.
        """
        if self._kept is None:
            return pa.memory_map(self.path(name))
        if self._kept.get(name) is None:
            self.read(name, keep=True)
        return pa.BufferReader(self._kept.get(name))

    def exists(self, name: str) -> bool:
        info = self._patiently("looked for", name, lambda: self._fs.get_file_info(self.path(name)))
        found: bool = info.type == fs.FileType.File
        return found

    def changed_ns(self, name: str) -> int:
        """When the file `name` was last written, in nanoseconds since the epoch; 0 where there is none."""
        info = self._patiently("looked for", name, lambda: self._fs.get_file_info(self.path(name)))
        return int(info.mtime_ns or 0)

    def size_bytes(self, name: str) -> int:
        """The size of the file `name`; 0 where there is none."""
        info = self._patiently("looked for", name, lambda: self._fs.get_file_info(self.path(name)))
        return int(info.size or 0)

    def sha256(self, name: str) -> str:
        """SHA-256 of the file `name`, read in pieces; kept where it is an object, since it will be opened."""
        if self.local is None:
            return hashlib.sha256(self.read(name, keep=True)).hexdigest()
        digest = hashlib.sha256()
        with self._fs.open_input_stream(self.path(name), compression=None) as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        """The files directly in `folder`, by relative name, sorted; files under way left out."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        infos = self._patiently("listed", folder, lambda: self._fs.get_file_info(selector))
        found = [info.base_name for info in infos if info.type == fs.FileType.File]
        return sorted(f"{folder}/{name}" if folder else name for name in found if not name.startswith(TEMPORARY))

    def names_below(self, folder: str, ending: str) -> list[str]:
        """The files in `folder` and all folders below it whose names end so, by relative name, sorted; files under way left out."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        infos = self._patiently("listed", folder, lambda: self._fs.get_file_info(selector))
        found = [info for info in infos if info.type == fs.FileType.File and info.base_name.endswith(ending)]
        root = len(self.path("")) + 1
        return sorted(info.path[root:] for info in found if not info.base_name.startswith(TEMPORARY))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._patiently("deleted", name, lambda: self._fs.delete_file(self.path(name)))
        self._forget(name)

    def sweep(self) -> None:
        """Deletes what a killed writer left under way."""
        if self.local is None:
            return
        for folder in (self.local, self.local / "answers", self.local / "scores"):
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)

    def _put(self, name: str, data: bytes | pa.Buffer) -> None:
        with self._fs.open_output_stream(self.path(name)) as stream:
            # in one call, so that no interrupt comes between two parts
            stream.write(data)

    def _get(self, name: str) -> bytes:
        with self._fs.open_input_stream(self.path(name), compression=None) as stream:
            data: bytes = stream.read()
        return data

    def _forget(self, name: str) -> None:
        if self._kept is not None:
            self._kept.drop(name)

    def _patiently(self, verb: str, name: str, action: Callable[[], Result]) -> Result:
        """Does `action`, again and again while the store fails, for `retry_s`; said once on the error output."""
        deadline = time.monotonic() + self.retry_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                return action()
            except OSError as error:
                if isinstance(error, FileNotFoundError) and verb != "written":
                    raise
                if error.errno in FULL or time.monotonic() + pause > deadline:
                    raise self._refusal(verb, name, error) from error
                if pause == FIRST_PAUSE_S:
                    print(f"{self._refusal(verb, name, error)} Trying again for {self.retry_s:g} s.", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal(verb, name, error) from error

    def _refusal(self, verb: str, name: str, error: OSError) -> StorageError:
        reason = "no space left on the device" if error.errno in FULL else str(error)
        return StorageError(
            f"{self.uri}: {name or 'the folder'} could not be {verb}: {reason}. What was written before is safe; make room or mend "
            "the store, then give the same command again."
        )


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A full disk, a spent quota, a file-size limit: trying again does not help."""


def is_full(error: BaseException) -> bool:
    """Whether `error` (or its cause) says that there is no room."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return isinstance(cause, OSError) and cause.errno in FULL


def _write_local(target: Path, data: bytes | pa.Buffer) -> None:
    beside = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, target)
        sync(target.parent)
    finally:
        beside.unlink(missing_ok=True)
