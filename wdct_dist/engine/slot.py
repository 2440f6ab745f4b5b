"""The answer slot: an assistant's message in a conversation that is filled with the model's own answer to what stands before it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from wdct_dist.config.schema import SamplingConfig
from wdct_dist.ids import stable_hash
from wdct_dist.prompts.types import ANSWER_SLOT, Message, Prompt


def slot_place(prompt: Prompt) -> int | None:
    """Which message is the slot, or None."""
    for place, message in enumerate(prompt.messages):
        if message.content == ANSWER_SLOT:
            return place
    return None


def first_turn(prompt: Prompt, place: int) -> Prompt:
    """The conversation up to the slot, as a prompt of its own; the beginning of the last reply begins this one too.

    It is, token for token, what the same variant asks on its first side, so the prefix cache has it.
    """
    return replace(prompt, messages=(*prompt.messages[:place], *_begun(prompt)))


def filled(prompt: Prompt, place: int, said: str) -> Prompt:
    """The whole conversation, with the label `said` in the slot."""
    reply = " ".join([*(message.content.rstrip(" \t") for message in _begun(prompt)), said]).strip()
    return replace(prompt, messages=(*prompt.messages[:place], Message("assistant", reply), *prompt.messages[place + 1 :]))


def label_said(prompt: Prompt, trial: int, label_logprobs: Sequence[float], sampling: SamplingConfig) -> str:
    """The label that the model says, from the log-probabilities by label place.

    At temperature 0 the most probable one; among exactly equal ones a hash of the prompt and the trial decides, so that no place is
    preferred. Above 0 it is drawn from softmax(label_logprobs / temperature), seeded by the prompt and the trial.
    """
    seed = [prompt.prompt_id, trial, "slot"]
    top = max(label_logprobs)
    if sampling.temperature > 0:
        weights = [math.exp((value - top) / sampling.temperature) for value in label_logprobs]
        return random.Random(stable_hash([sampling.sampling_seed, *seed])).choices(prompt.labels, weights)[0]
    tied = [label for label, value in zip(prompt.labels, label_logprobs, strict=True) if value == top]
    return tied[int(stable_hash(seed, length=8), 16) % len(tied)]


def _begun(prompt: Prompt) -> tuple[Message, ...]:
    """The beginning of the last reply, where there is one."""
    return prompt.messages[-1:] if prompt.messages[-1].role == "assistant" else ()
