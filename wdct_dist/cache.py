"""Where things that can be made again are kept on this machine: converted models, hashes, fetched data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The directory in WDCT_CACHE where that is set, else ~/.cache/wdct_dist. It need not exist yet."""
    return Path(os.path.abspath(Path(os.environ.get("WDCT_CACHE") or "~/.cache/wdct_dist").expanduser()))
