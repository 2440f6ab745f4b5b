"""The public data set: where it is, and bringing it here verified by hash.

The files are those of the paper's repository, licence CC BY-NC-SA 4.0. They are never part of this package: each user
fetches them from their publisher. Standard library only; the network modules are imported when something is fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.errors import WdctError
from wdct_dist.ids import file_sha256

WDCT_COMMIT = "63cba03da9f9da076faaae4c09c344102354b9dd"
WDCT_URL = "https://raw.githubusercontent.com/icip-cas/Word-Deed-Consistency-Test"
"""Base of the public repository's files; the commit and a file's path follow."""

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of the public repository at `WDCT_COMMIT`."""

    name: str
    path: str
    size_bytes: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is this one, byte by byte."""
        return path.is_file() and path.stat().st_size == self.size_bytes and file_sha256(path) == self.sha256


WDCT_CSV = PublishedFile(
    name="WDCT.csv",
    path="data/WDCT.csv",
    size_bytes=659_899,
    sha256="94330dbb9acdbdd958a3b050b6301df35b7ca3c943e303dadaddf4b8d477cff7",
)
DEMO_CSV = PublishedFile(
    name="demo.csv",
    path="data/reference/demo.csv",
    size_bytes=26_981,
    sha256="3c7d44f980e361cf642a8e88fbfe3dc280d9cb6bfd8b41d23ffcc80b2f98e1dd",
)


def fetch_wdct(cache: Path | None = None, url_base: str = WDCT_URL) -> Path:
    """Fetches the public test and its demonstrations into `cache` (default `cache_root()`); returns the path of WDCT.csv.

    A file that is there already, with the right hash, is not fetched again. A file gets its name only when its SHA-256 is
    the published one. Raises WdctError where there is no network, no such file, too little or other content, or where the
    cache cannot be written; nothing is left of a transfer that failed.
    """
    folder = cache_root() if cache is None else cache
    # The test itself comes last, so that where it is the demonstrations are too.
    for published in (DEMO_CSV, WDCT_CSV):
        target = folder / published.name
        if not published.is_at(target):
            _place(target, _download(published, f"{url_base}/{WDCT_COMMIT}/{published.path}", target))
    return folder / WDCT_CSV.name


def _download(published: PublishedFile, url: str, target: Path) -> bytes:
    """The file's bytes (under 1 MB, so held in memory), proven to be the published ones; `target` is where they are wanted."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    by_hand = f"or bring the file from elsewhere to {target} (SHA-256 {published.sha256})"
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read(published.size_bytes + 1)
    except HTTPError as error:
        raise WdctError(f"{url} was answered with {error.code} {error.reason}; try again later, {by_hand}.") from None
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        raise WdctError(f"{url} cannot be reached: {cause}. Run this where there is a network, {by_hand}.") from None
    if len(content) < published.size_bytes:
        raise WdctError(
            f"{url} broke off after {len(content):,} of {published.size_bytes:,} bytes; nothing was kept. Run the command again."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != published.sha256:
        raise WdctError(
            f"{url} is not the published {published.name}: its SHA-256 is {digest}, expected {published.sha256}; "
            "nothing was kept. Something between here and the publisher changes files (a proxy, a log-in page?)."
        )
    return content


def _place(target: Path, content: bytes) -> None:
    """Writes `content` beside `target`, syncs it and gives it its name: the file is whole or is not there."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise WdctError(f"{target} cannot be written: {error.strerror or error}. Set WDCT_CACHE to a folder that can be.") from None
