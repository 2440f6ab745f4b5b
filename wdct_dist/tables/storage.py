"""Where a run directory's bytes go: a local path or any URI that `pyarrow.fs` reads.

A file is whole or is not there. Locally: written beside under a hidden name, synced, renamed, directory synced. On an object
store a put is whole by itself. The store is named by its URI, so that it can be opened on every node.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from wdct_dist.errors import RunDirError, StorageError

TEMPORARY = ".tmp-"
"""Prefix of files under way; never read, swept away when a run is opened."""


PIECE_BYTES = 4 * 2**20


class Store:
    """The files under one root, by names relative to it such as `answers/x.arrow`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.local: Path | None = None
        if "://" in uri and not uri.startswith("file://"):
            try:
                self._fs, self._root = fs.FileSystem.from_uri(uri)
            except (pa.ArrowInvalid, OSError, ValueError) as error:
                raise RunDirError(
                    f"run_dir: {uri} is not a URI that pyarrow reads ({error}); use a local path, s3://… or gs://…."
                ) from None
        else:
            self.local = Path(uri.removeprefix("file://")).expanduser().absolute()
            self._fs, self._root = fs.LocalFileSystem(), str(self.local)

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
        with self._explained("written", name):
            if self.local is not None:
                self._write_local(self.local / name, data)
            else:
                with self._fs.open_output_stream(self.path(name)) as stream:
                    stream.write(data)

    def append(self, name: str, data: bytes) -> None:
        """Appends to a local file, as logs are written; an object store cannot."""
        assert self.local is not None, "an object store cannot append"
        with self._explained("written", name), (self.local / name).open("ab") as stream:
            stream.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[pa.NativeFile]:
        """A stream into the file `name`, which appears whole when the block ends well and not at all when it does not."""
        with self._explained("written", name):
            if self.local is None:
                with self._fs.open_output_stream(self.path(name)) as stream:
                    yield stream
                return
            target = self.local / name
            beside = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
            try:
                with pa.OSFile(str(beside), "wb") as stream:
                    yield stream
                _sync(beside)
                os.replace(beside, target)
                _sync(target.parent)
            finally:
                beside.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`; raises `FileNotFoundError` where there is none."""
        with self._fs.open_input_stream(self.path(name), compression=None) as stream:
            data: bytes = stream.read()
        return data

    def open(self, name: str) -> pa.NativeFile:
        """The file `name` for random access; mapped into memory where it is local."""
        if self.local is not None:
            return pa.memory_map(self.path(name))
        return self._fs.open_input_file(self.path(name))

    def exists(self, name: str) -> bool:
        found: bool = self._fs.get_file_info(self.path(name)).type == fs.FileType.File
        return found

    def changed_ns(self, name: str) -> int:
        """When the file `name` was last written, in nanoseconds since the epoch; 0 where there is none."""
        return int(self._fs.get_file_info(self.path(name)).mtime_ns or 0)

    def sha256(self, name: str) -> str:
        """SHA-256 of the file `name`, read in pieces."""
        digest = hashlib.sha256()
        with self._fs.open_input_stream(self.path(name), compression=None) as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        """The files directly in `folder`, by relative name, sorted; files under way left out."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        found = [info.base_name for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        return sorted(f"{folder}/{name}" if folder else name for name in found if not name.startswith(TEMPORARY))

    def names_below(self, folder: str, ending: str) -> list[str]:
        """The files in `folder` and all folders below it whose names end so, by relative name, sorted; files under way left out."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        found = [info for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File and info.base_name.endswith(ending)]
        root = len(self.path("")) + 1
        return sorted(info.path[root:] for info in found if not info.base_name.startswith(TEMPORARY))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self.path(name))

    def sweep(self) -> None:
        """Deletes what a killed writer left under way."""
        if self.local is None:
            return
        for folder in (self.local, self.local / "answers", self.local / "scores"):
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)

    @staticmethod
    def _write_local(target: Path, data: bytes | pa.Buffer) -> None:
        beside = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with beside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, target)
            _sync(target.parent)
        finally:
            beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "no space left on the device" if error.errno in FULL else str(error)
            raise StorageError(
                f"{self.uri}: {name} could not be {verb}: {reason}. What was written before is safe; make room or mend "
                "the store, then give the same command again."
            ) from error


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A full disk, a spent quota, a file-size limit: trying again does not help."""


def is_full(error: BaseException) -> bool:
    """Whether `error` (or its cause) says that there is no room."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return isinstance(cause, OSError) and cause.errno in FULL


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
