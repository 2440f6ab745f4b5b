"""What a model is trained on: small records, without a tokenizer and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wdct_dist.prompts.types import Message

Source = Literal["item", "instruction"]


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised example: the loss is on `completion` alone."""

    messages: tuple[Message, ...]
    """What the evaluation sends; a last message of the assistant is the beginning of its reply, which `completion` continues."""
    completion: str
    """The label of the target option, or the reply to an instruction; without the end of turn, which the chat template adds."""
    source: Source
    item_id: str | None
    """None where `source` is an instruction."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: the same messages with the reply that is wanted and the one that is not."""

    messages: tuple[Message, ...]
    """As those of an `Example`."""
    chosen: str
    """The label of the target option."""
    rejected: str
    """The label of the option that the baseline answered with."""
    item_id: str
