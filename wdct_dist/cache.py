"""Where things that can be made again are kept on this machine: converted models, hashes, fetched data."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_root() -> Path:
    """The directory in WDCT_CACHE where that is set, else ~/.cache/wdct_dist. It need not exist yet."""
    return Path(os.path.abspath(Path(os.environ.get("WDCT_CACHE") or "~/.cache/wdct_dist").expanduser()))


def put_in_place(file: Path, text: str) -> None:
    """Writes the file beside itself, then puts it in place: who reads it meanwhile has the old one or the new one, whole."""
    descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        os.chmod(beside, 0o644)  # mkstemp makes it private; other users of a shared cache read it too
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise
