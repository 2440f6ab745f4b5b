"""What a variant is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wdct_dist.config.schema import PromptConfig
from wdct_dist.items.types import Item, Question, Side
from wdct_dist.prompts.types import Message, Mode


@dataclass(frozen=True, slots=True)
class Ask:
    """One item, one side, one order: what a prompt is made from."""

    item: Item
    side: Side
    language: str
    question: Question
    """The question in `language`, its options in the data's order."""
    permutation: tuple[int, ...]
    labels: tuple[str, ...]
    """As many labels as there are options."""
    settings: PromptConfig

    @property
    def options_shown(self) -> tuple[str, ...]:
        """The options' texts in the order of the labels."""
        return tuple(self.question.options[option] for option in self.permutation)


@dataclass(frozen=True, slots=True)
class Draft:
    """The messages of a prompt; a last one by the assistant begins its reply."""

    messages: tuple[Message, ...]
    mode: Mode = "score"


Variant = Callable[[Ask], Draft]
