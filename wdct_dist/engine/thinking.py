"""Thinking blocks: what a reasoning model writes between two tags, for itself, before it replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tags:
    """What opens a thinking block, and what closes it."""

    opening: str
    closing: str


THINK = Tags("<think>", "</think>")
"""Counts in every model's text; many models write it with ordinary tokens."""

NAMED = (
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("◁think▷", "◁/think▷"),
)
"""Count where the tokenizer has a token of its own for both (Seed-OSS, MiniMax, Cohere, Magistral, Kimi and others)."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Where a text is outside its thinking blocks."""

    spoken: tuple[tuple[int, int], ...]
    """Spans (start, stop) of what is no thinking, in order; the tags are in none."""
    open: Tags | None
    """The block that the text leaves open."""


def thinking_tags(tokenizer: Any) -> tuple[Tags, ...]:
    """The tags that a model with this tokenizer may think between."""
    added = tokenizer.get_added_vocab()
    return (THINK, *(tags for tags in NAMED if tags.opening in added and tags.closing in added))


def scan(text: str, tags: Sequence[Tags], opened: Tags | None = None) -> Scan:
    """The spans of `text` outside thinking. `opened`: the block that was open before it. Blocks do not nest."""
    spoken: list[tuple[int, int]] = []
    place = 0
    while True:
        if opened is not None:
            closed = text.find(opened.closing, place)
            if closed < 0:
                return Scan(tuple(spoken), opened)
            place = closed + len(opened.closing)
        begins = [(start, one) for one in tags if (start := text.find(one.opening, place)) >= 0]
        start, opened = min(begins, key=lambda begin: begin[0]) if begins else (len(text), None)
        if start > place:
            spoken.append((place, start))
        if opened is None:
            return Scan(tuple(spoken), None)
        place = start + len(opened.opening)


def stop_in(text: str, scanned: Scan, stop: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first; of several, the one that comes first in `stop`. None: there is none.

    Those within thinking do not count.
    """
    for begin, end in scanned.spoken:
        found = [(start + len(one), order, start) for order, one in enumerate(stop) if (start := text.find(one, begin, end)) >= 0]
        if found:
            return min(found)[2]
    return None


def opened_at_end(text: str, tags: Sequence[Tags]) -> Tags | None:
    """The block that a prompt opens with its last word, as the templates of models that always think do."""
    return next((one for one in tags if text.rstrip().endswith(one.opening)), None)
