"""Whether a paraphrase stands for its original, as far as words alone can tell: what is wrong with it, and what needs no further asking."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wdct_dist.items.types import Question

SWAPPED_BY = 0.2
"""Two options are taken for swapped where their words resemble each other's originals by this much more than their own."""

MERGED_BY = 0.4
"""Two options are taken for one where they are alike by this much more than their originals are."""

SHORTEST = 1 / 3
"""A question that is shorter than this share of the original has lost some of its facts; tersely said, one keeps half and more."""

CLEARLY = 0.3
"""A text is clearly its own original's where it resembles it by this much more than any other one."""

ALIKE = 0.5
"""And by this much at least."""

_CJK = re.compile(r"[\u4e00-\u9fff]")
_POLARITY = re.compile(r"\b(?:yes|no|not|nor|never|none|without|against|for)\b|n['’]t\b|[不没未非无]", re.IGNORECASE)


def alignment_fault(new: Question, original: Question, labels: Sequence[str]) -> str | None:
    """What keeps `new` from standing for `original`, option by option."""
    if not new.question:
        return "it has no question"
    empty = [label for label, option in zip(labels, new.options, strict=True) if not option]
    if empty:
        return f"option {empty[0]} is empty"
    options = [_plainly(option) for option in new.options]
    before = [_plainly(option) for option in original.options]
    if len(set(options)) < len(options):
        return "two of its options are the same"
    if options == before and _plainly(new.question) == _plainly(original.question):
        return "it has the very words of the original"
    if bool(_CJK.search(new.question)) != bool(_CJK.search(original.question)):
        return "it is in another script"
    if len(new.question) < SHORTEST * len(original.question):
        return "its question lost most of the text"
    alike = [[_likeness(option, other) for other in before] for option in options]
    for i, label in enumerate(labels):
        for j in range(len(labels)):
            if i != j and options[i] == before[j]:
                return f"its option {label} is the original's {labels[j]}"
            if i < j and alike[i][j] + alike[j][i] > alike[i][i] + alike[j][j] + SWAPPED_BY:
                return f"its options {label} and {labels[j]} look swapped"
            if i < j and _likeness(options[i], options[j]) > _likeness(before[i], before[j]) + MERGED_BY:
                return f"its options {label} and {labels[j]} are nearly the same"
    return None


def clearly_of(text: str, own: str, others: Sequence[str] = ()) -> bool:
    """Whether the words of `text` say that it stands for `own`, and for none of `others`, so that nobody has to be asked.

    A text that says yes or no, for or against, other than its original does, is never clear.
    """
    if _plainly(text) == _plainly(own):
        return True
    if _polarity(text) != _polarity(own):
        return False
    others_likeness = [_likeness(_plainly(text), _plainly(other)) + CLEARLY for other in others]
    return _likeness(_plainly(text), _plainly(own)) >= max(ALIKE, *others_likeness, 0.0)


def _polarity(text: str) -> list[str]:
    return sorted(found.casefold() for found in _POLARITY.findall(text))


def _likeness(one: str, other: str) -> float:
    """Share of the letter pairs that two texts have in common: Jaccard index, 0 to 1; works for scripts without spaces too."""
    first, second = ({text[start : start + 2] for start in range(len(text) - 1)} for text in (one, other))
    return len(first & second) / len(first | second) if first or second else 0.0


def _plainly(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", "", text.casefold()).split())
