"""Prompts: what is sent. item × side × variant × language × permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wdct_dist.items.types import Side

Mode = Literal["score", "reason"]
Role = Literal["system", "user", "assistant"]

ANSWER_SLOT = "<|wdct:the answer to the question before|>"
"""The whole content of an assistant's message that the engine fills in: the label that the model answers the messages before it with."""


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
    """`score`: label probabilities where the reply begins. `reason`: where the answer stands after the model's own reasoning."""
    answer_cue: str | None = None
    """What is put behind the reasoning, so that the answer is next; set where the mode is "reason", and only there."""
    stop: tuple[str, ...] = ()
    """Strings that end the reasoning and are not part of it."""
    reply_tokens: int | None = None
    """At the answer place, generate up to this many tokens as `text`; None: one."""
    plain_cue: str | None = None
    """How the reply is begun in the plain format; "": the text ends as its last message ends, None: as the renderer does it."""
