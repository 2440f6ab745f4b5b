"""Stable hashes: the same content has the same id on every machine and in every version of Python."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ID_LENGTH = 20
"""Hex digits of an id: 80 bits, so 10 million prompts collide with a probability of about 4e-11."""


def stable_hash(content: Any, length: int = ID_LENGTH) -> str:
    """SHA-256 over the canonical JSON of `content`, as `length` hex digits."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def slug(name: str, limit: int = 48) -> str:
    """`name` as it may stand in a file name: letters, digits, dot and dash; other runs become one dash."""
    cleaned = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    return cleaned[-limit:].strip("-.") or "unnamed"


def slugs(names: Iterable[str], limit: int) -> dict[str, str]:
    """The slug of each name, all different: two that would be the same are told apart by their hashes."""
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        short = slug(name, limit)
        taken[name] = f"{short}-{stable_hash(name, 6)}" if short in taken.values() else short
    return taken
