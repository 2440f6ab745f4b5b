"""What a checkpoint *is*: hashes over the files that decide its answers, whatever its directory is called.

Weights, config.json, generation_config.json, quantisation settings, tokenizer, chat template and model code count; optimizer states,
logs, READMEs and indexes of shards do not. Hashing reads every byte, so the hash of a file is kept in <cache>/digests.json under
its path, size, modification time and inode, and read again only when one of them changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wdct_dist.cache import cache_root, put_in_place
from wdct_dist.checkpoints.file_lock import locked
from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.ids import file_sha256

TOKENIZER_PATTERNS = (
    "tokenizer*.json", "tokenizer.model*", "*.spm", "spiece.model", "sentencepiece*.model", "vocab.*", "merges.txt", "tekken.json",
    "*.tiktoken", "special_tokens_map.json", "added_tokens.json", "chat_template*",
)  # fmt: skip
CONFIG_PATTERNS = (
    "config.json", "generation_config.json", "params.json", "quantize_config.json", "quantization_config.json",
    "hf_quant_config.json", "*preprocessor_config.json", "processor_config.json", "*.py",
)  # fmt: skip
SETTLED_AFTER_S = 2.0
"""A file changed more recently than this is not remembered: a second change could leave size and time as they are."""
NUM_THREADS = 4
"""SHA-256 leaves Python's lock free; more readers gain nothing on common disks."""


def digest(directory: Path, cache: Path | None = None) -> str:
    """SHA-256 over the names and hashes of all files in `directory` that decide answers; 64 hex digits.

    `cache` is the cache root (default `cache_root()`). Raises `CheckpointError` for an index of weights that cannot be read.
    """
    return _combine(directory, deciding_files(directory), cache)


def stamp(directory: Path) -> str:
    """Hash of the names, sizes and modification times of the files that decide answers: the same where nothing was written since.

    Reads no contents. Raises `CheckpointError` as `digest`, `OSError` where a file is gone.
    """
    states = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in deciding_files(directory))
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def deciding_files(directory: Path) -> set[Path]:
    """The files in `directory` that decide answers. Raises `CheckpointError` for an index of weights that cannot be read."""
    return {*weight_files(directory), *_matching(directory, (*CONFIG_PATTERNS, *TOKENIZER_PATTERNS))}


def weights_digest(directory: Path, cache: Path | None = None) -> str:
    """As `digest`, over the weight files only: two checkpoints with the same one differ in settings or tokenizer alone."""
    return _combine(directory, weight_files(directory), cache)


def tokenizer_digest(directory: Path, cache: Path | None = None) -> str:
    """As `digest`, over tokenizer and chat template: where it is the same, the same messages give the same token ids."""
    return _combine(directory, _matching(directory, TOKENIZER_PATTERNS), cache)


def file_hashes(files: Iterable[Path], cache: Path | None = None, *, fresh: bool = False) -> dict[Path, str]:
    """SHA-256 by file. With `fresh` every byte is read again, whatever is remembered."""
    store = (cache or cache_root()) / "digests.json"
    remembered = {} if fresh else _load(store)
    names = {file: os.path.realpath(file) for file in files}
    missing = sorted({name for name in names.values() if not _is_known(remembered, name)})
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        hashed = dict(zip(missing, pool.map(_hash, missing), strict=True))
    _remember(store, {name: entry for name, entry in hashed.items() if entry[0] is not None})
    return {file: hashed[name][1] if name in hashed else remembered[name][1] for file, name in names.items()}


Identity = list[int]
"""Size, modification time in ns, inode."""
Entries = dict[str, tuple[Identity | None, str]]
"""(identity, sha256) by real path; no identity where the file is not settled."""


def _combine(directory: Path, files: Iterable[Path], cache: Path | None) -> str:
    hashes = file_hashes(set(files), cache)
    lines = sorted(f"{file.relative_to(directory).as_posix()}\0{sha256}\n" for file, sha256 in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _matching(directory: Path, patterns: Iterable[str]) -> list[Path]:
    return [file for pattern in patterns for file in directory.glob(pattern) if file.is_file()]


def _identity(name: str) -> Identity:
    state = os.stat(name)
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def _is_known(remembered: Entries, name: str) -> bool:
    return name in remembered and remembered[name][0] == _identity(name)


def _hash(name: str) -> tuple[Identity | None, str]:
    before = _identity(name)
    sha256 = file_sha256(Path(name))
    settled = _identity(name) == before and time.time() - before[1] / 1e9 > SETTLED_AFTER_S
    return (before if settled else None), sha256


def _load(store: Path) -> Entries:
    """What is remembered; nothing where the file is missing or damaged, since it can always be made again."""
    try:
        files = json.loads(store.read_bytes())["files"].items()
        return {name: (identity, sha256) for name, (identity, sha256) in files if _is_sha256(sha256)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


def _remember(store: Path, entries: Entries) -> None:
    """Adds entries. A cache that cannot be written costs time, not answers."""
    if not entries:
        return
    with contextlib.suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        with locked(store.with_suffix(".lock")):
            put_in_place(store, json.dumps({"files": _load(store) | entries}))
