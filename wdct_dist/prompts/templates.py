"""The words that we send, by language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """How one language asks. `{question}`, `{options}` and `{labels}` are filled in."""

    direct: str
    option_line: str
    list_separator: str
    last_separator: str


WORDINGS: dict[str, Wording] = {
    "en": Wording(
        direct="{question}\n{options}\n\nAnswer with the label of one option only: {labels}.",
        option_line="{label}. {text}",
        list_separator=", ",
        last_separator=" or ",
    ),
    "zh": Wording(
        direct="{question}\n{options}\n\n请只回答一个选项的标签：{labels}。",
        option_line="{label}. {text}",
        list_separator="、",
        last_separator="或",
    ),
}


def wording(language: str) -> Wording:
    """The wording of a language; languages that we have no words for are instructed in English."""
    return WORDINGS.get(language, WORDINGS["en"])


def direct_text(words: Wording, question: str, options: Sequence[str], labels: Sequence[str]) -> str:
    """The question, its options in the order shown, and the instruction to name one label."""
    lines = "\n".join(words.option_line.format(label=label, text=text) for label, text in zip(labels, options, strict=True))
    named = words.list_separator.join(labels[:-1]) + words.last_separator + labels[-1]
    return words.direct.format(question=question, options=lines, labels=named)
