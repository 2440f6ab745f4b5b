"""What a variant is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wdct_dist.config.schema import Config, PromptConfig
from wdct_dist.items.types import Item, Question, Side
from wdct_dist.prompts.permute import ItemOrders
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
    orders: ItemOrders = field(default_factory=dict)
    """Every order in which each side of the item is asked; `permutation` is one of this side's."""
    paraphrases: Mapping[int, Mapping[Side, Question]] = field(default_factory=dict)
    """The item's paraphrases in `language`, by number from 1, then by side; only those that both sides have."""

    @property
    def other_side(self) -> Side:
        return "deed" if self.side == "word" else "word"

    @property
    def options_shown(self) -> tuple[str, ...]:
        """The options' texts in the order of the labels."""
        return shown(self.question, self.permutation)


@dataclass(frozen=True, slots=True)
class Draft:
    """The messages of a prompt; a last one by the assistant begins its reply."""

    messages: tuple[Message, ...]
    mode: Mode = "score"
    labels: tuple[str, ...] | None = None
    """Where they are not those of the Ask."""
    answer_cue: str | None = None
    """In the mode "reason": what is put behind the reasoning, so that the answer is next."""
    stop: tuple[str, ...] = ()
    """In the mode "reason": strings that end the reasoning."""
    reply_tokens: int | None = None
    """Tokens to generate where the answer stands; None: `prompt.reply_tokens`."""
    plain_cue: str | None = None
    """How the reply is begun in the plain format; "": it is begun already."""


@dataclass(frozen=True, slots=True)
class Skip:
    """This question is not asked in this variant. Skips are counted by their reason, so the reason names no item."""

    reason: str


Variant = Callable[[Ask], Draft | Sequence[Draft] | Skip]
"""From an Ask to its prompt; several, where one question is asked in several conversations."""


class Family(Protocol):
    """Several ways of asking under one registered name, or one that has settings."""

    def expand(self, config: Config) -> Sequence[tuple[str, Variant]]:
        """The variants by name, which tables and reports show. Raises `ConfigError` for settings that cannot be."""
        ...


def shown(question: Question, permutation: tuple[int, ...]) -> tuple[str, ...]:
    """A question's options in the order of the labels."""
    return tuple(question.options[option] for option in permutation)


def framed(text: str, settings: PromptConfig, *, prefix: bool = True) -> tuple[Message, ...]:
    """`text` as the user's message, behind the system message and before the beginning of the reply that the settings ask for."""
    messages = [Message("user", text)]
    if settings.system is not None:
        messages.insert(0, Message("system", settings.system))
    if prefix and settings.answer_prefix:
        messages.append(Message("assistant", settings.answer_prefix))
    return tuple(messages)
