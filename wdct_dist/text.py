"""Text from outside, made fit for Arrow, JSON and terminals."""

from __future__ import annotations


def replace_surrogates(text: str) -> str:
    """Return `text` with each lone surrogate replaced by U+FFFD, and each pair of surrogates by the character that it stands for.

    JSON may hold half of a surrogate pair (an emoji that was cut: `"\\ud83d"`), which no UTF-8 text can hold.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters with which spreadsheets take the text of a CSV field for a formula, and run it."""


def spreadsheet_safe(text: str) -> str:
    """Return the text of a CSV field with an apostrophe in front if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
