"""What an engine is, and what it says about one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wdct_dist.prompts.types import Prompt


@dataclass(frozen=True, slots=True)
class Response:
    """What an engine said about one prompt in one trial; raw, never edited afterwards."""

    prompt_id: str
    trial: int
    option_logprobs: tuple[float, ...] | None = None
    """Natural log, by option index (permutation undone), from the full-vocabulary softmax, summed over spellings."""
    label_mass: float | None = None
    """Probability that fell on any label, 0 to 1."""
    text: str | None = None
    reasoning: str | None = None
    rendered_digest: str | None = None
    """Hash of the token ids really sent."""
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_output_tokens: int | None = None
    error: str | None = None
    """Why there is no answer, or None."""
    said: str | None = None
    """The label that was put into the prompt's answer slot; None where it has none."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a started engine is, for the provenance."""

    kind: str
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    dtype: str = ""
    max_model_len: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """One model, ready. `answer` may be called from several threads at once: their prompts share the engine's batches."""

    @property
    def facts(self) -> EngineFacts: ...

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. A prompt that cannot be answered has `error`; an engine that is broken raises."""
        ...

    def close(self) -> None: ...
