"""What a cell of a report's table says, as numbers where it says numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

# not `012345678901`, which is a digest
_NUMBER = r"[+-]?(?:0|[1-9][\d,]*)(?:\.\d+)?"
_FIGURE = re.compile(rf"({_NUMBER})(?:[ *]\[({_NUMBER}), ({_NUMBER})\])?")

INTERVAL = " [interval]"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with its interval, where there is one; a text; or nothing."""

    value: float | int | str | None
    low: float | int | None = None
    high: float | int | None = None


def read_cell(text: str) -> Cell:
    """`0.710 [0.670, 0.750]`, `0.710`, `1,225`, `-` (nothing), or anything else, which stays a text."""
    if text in ("-", ""):
        return Cell(None)
    found = _FIGURE.fullmatch(text)
    if found is None:
        return Cell(text)
    value, low, high = found.groups()
    return Cell(_number(value), None if low is None else _number(low), None if high is None else _number(high))


def heading(column: str) -> str:
    """A column's heading on one line."""
    return " ".join(column.removesuffix(INTERVAL).split())


def _number(text: str) -> float | int:
    plain = text.replace(",", "")
    return float(plain) if "." in plain else int(plain)
