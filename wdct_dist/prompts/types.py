"""Prompts: what is sent. item × side × variant × language × permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wdct_dist.items.types import Side

Mode = Literal["score", "reason"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. A last message of the assistant is the beginning of its reply, to be continued."""

    prompt_id: str
    item_id: str
    domain: str
    side: Side
    variant: str
    language: str
    permutation: tuple[int, ...]
    """Option shown at label i."""
    labels: tuple[str, ...]
    """The label shown at place i."""
    messages: tuple[Message, ...]
    mode: Mode
