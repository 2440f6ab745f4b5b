"""Items: a word question, its deed question, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["word", "deed"]
SIDES: tuple[Side, Side] = ("word", "deed")

DOMAINS = ("Opinion", "NonEthV", "EthV", "Theory")
"""The domains of the published test; a user's own are named in `data.extra_domains`."""

ALL_DOMAINS = "all"
"""What tables call all domains together; no domain may have the name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its options, in the data's order and without labels."""

    question: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A short reasoning (`belief`) and the option that it leads to."""

    belief: str
    option: int


@dataclass(frozen=True, slots=True)
class Item:
    """One word question and its deed question; option i of one corresponds to option i of the other."""

    item_id: str
    domain: str
    questions: Mapping[Side, Question]
    correct_option: int | None = None
    translations: Mapping[str, Mapping[Side, Question]] = field(default_factory=dict)
    """By language code, then by side."""
    paraphrases: Mapping[Side, tuple[Question, ...]] = field(default_factory=dict)
    demonstrations: Mapping[Side, Demonstration] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    """Rules of `validate` that found the item suspicious."""

    @property
    def num_options(self) -> int:
        return len(self.questions["word"].options)

    def question(self, side: Side, language: str = "en") -> Question | None:
        """The question of one side in one language, or None where the item has no such translation."""
        if language == "en":
            return self.questions[side]
        return self.translations.get(language, {}).get(side)
