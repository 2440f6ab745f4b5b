"""The options as a prompt shows them, read back from its text: the other way round of `templates.option_lines`.

What was really shown decides what a reply repeats: a translation, a paraphrase or a user's own variant, not the item's own text.
"""

from __future__ import annotations

from collections.abc import Sequence


def read_option_lines(text: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The options' texts by place; empty where the text has no such lines.

    The last lines of this form count: demonstrations show options of their own before. An option of several lines cannot be told
    from what stands around it; of such options there is nothing or the first line.
    """
    lines = text.split("\n")
    for first in range(len(lines) - len(labels), -1, -1):
        found = [_option(line, label) for line, label in zip(lines[first:], labels, strict=False)]
        if all(option is not None for option in found):
            return tuple(option for option in found if option is not None)
    return ()


def _option(line: str, label: str) -> str | None:
    for mark in (" ",) if label.endswith(")") else (". ", ") ", ": "):
        if line.startswith(label + mark):
            return line[len(label + mark) :].strip()
    return None
