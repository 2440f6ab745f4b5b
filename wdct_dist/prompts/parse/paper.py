"""The answer as the published evaluation reads it (arXiv 2503.07003), for `protocol: paper`."""

from __future__ import annotations

import re
from typing import Literal

PAPER_REFUSALS = ("i'm sorry", "cannot answer", "can't answer")
PAPER_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\A([AB])\n",  # the first line is the label
        r"\A([AB]).\n",  # or the label and one more character
        r"Answer:.*?([AB])",
        r"([AB])\.",
        r"([AB])\)",
        r"([AB]):",
        r"([AB])",
    )
)
"""In the published order, each searched in the whole text before the next: the last takes the A of `At` for an answer."""


def parse_paper(text: str) -> Literal["A", "B"] | None:
    """The answer as the published evaluation reads it (two options, labels A and B); None where it refuses or names neither.

    Source: the public code of arXiv 2503.07003 at commit 63cba03. Its quirks are kept, since `protocol: paper` reproduces it:
    capitals only, any A or B counts in the end, and only these three phrases, with a straight apostrophe, refuse.
    """
    said = text.strip()
    if is_paper_refusal(said):
        return None
    for pattern in PAPER_PATTERNS:
        found = pattern.search(said)
        if found is not None:
            return "A" if found[1] == "A" else "B"
    return None


def is_paper_refusal(text: str) -> bool:
    """Whether the published evaluation takes the reply for a refusal."""
    return any(phrase in text.lower() for phrase in PAPER_REFUSALS)
