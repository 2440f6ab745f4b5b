"""What the tests of items share: the public test where it is at hand, and small item files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "wdct"


@pytest.fixture(scope="session")
def public_folder() -> Path:
    """Folder with the public WDCT.csv and demo.csv."""
    if not (PUBLIC / "WDCT.csv").is_file():
        pytest.skip("the public WDCT data is not beside the checkout (../shared/wdct)")
    return PUBLIC


@pytest.fixture
def plain() -> Callable[..., dict[str, Any]]:
    """Makes a whole, faultless item in its plain form; keys given replace its own."""

    def make(number: int = 1, **changes: Any) -> dict[str, Any]:
        item = {
            "item_id": f"item-{number}",
            "domain": "Opinion",
            "word": {"question": f"Is habit {number} good?", "options": ["It is good", "It is harmful"]},
            "deed": {"question": f"A friend shows you habit {number}. What now?", "options": ["Take it up", "Leave it"]},
        }
        return {**item, **changes}

    return make


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes objects as lines of JSON; text and bytes are written as they come."""

    def write(*entries: object, name: str = "items.jsonl") -> Path:
        lines = [
            entry
            if isinstance(entry, bytes)
            else (entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)).encode("utf-8", "surrogatepass")
            for entry in entries
        ]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV of the public test's columns from the cells of each row."""

    def write(*rows: list[str], header: str = "Type,id,speak,act,correct_answer", name: str = "items.csv") -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header.split(","))
            writer.writerows(rows)
        return path

    return write
