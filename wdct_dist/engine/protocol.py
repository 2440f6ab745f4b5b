"""What an engine is, and what it says about one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.prompts.types import Prompt


@dataclass(frozen=True, slots=True)
class Response:
    """What an engine said about one prompt in one trial; raw, never edited afterwards."""

    prompt_id: str
    trial: int
    option_logprobs: tuple[float, ...] | None = None
    """Natural log, by option index (permutation undone), from the full-vocabulary softmax, summed over spellings."""
    label_mass: float | None = None
    """Probability that fell on any label, 0 to 1; behind an API, that was seen to."""
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
    option_lower: tuple[float | None, ...] | None = None
    """Where an API shows only some tokens, and not those of every option: by option, the natural log of the probability that was seen to
    fall on it, None where none was. `option_logprobs` is None then."""
    option_upper: tuple[float, ...] | None = None
    """Beside `option_lower`: the natural log of what each option's probability is at most."""


@dataclass(frozen=True, slots=True)
class StartProof:
    """What a comparison of a freshly started engine with the files of its checkpoint showed. Only a proof without a fault is kept."""

    num_tensors: int
    """Tensors that the engine computes with exactly as the files have them."""
    num_not_proven: int
    """Tensors and layers that cannot be compared: quantised, mixture of experts, or kept in another order than in the files."""
    not_proven: tuple[str, ...]
    """The first of them by name."""
    seconds: float


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
    num_swaps: int = 0
    """How often its checkpoint was changed since it was started."""
    start_proof: StartProof | None = None
    """None if there are no weights, or if adapters share the engine."""


@dataclass(frozen=True, slots=True)
class Canary:
    """What proved that a swapped engine computes with the weights of its new checkpoint."""

    num_tensors: int
    """Tensors of the checkpoint that were compared with what the engine computes."""
    num_told_apart: int
    """Of these, compared where the old and the new weights differ: had they stayed the old ones, it would have been seen."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Swap:
    """A live engine has taken another checkpoint."""

    facts: EngineFacts
    load_s: float
    """Weights, tokenizer and prefix cache."""
    canary: Canary | None
    """None where there are no weights."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """An engine that has a base and applies adapters beside it, each for the prompts that ask for it, all in one batch."""

    base_digest: str
    highest_rank: int
    """Of the adapters that it takes."""
    num_slots: int
    """Adapters that it has at once."""


class Stopped(Exception):
    """An engine asks nothing more, and nothing is wrong with it: its budget is spent, or it was told to stop.

    `responses` are those of the call's prompts, in order; None for each that has none.
    """

    def __init__(self, reason: str, responses: Sequence[Response | None]) -> None:
        super().__init__(reason)
        self.responses = responses


@runtime_checkable
class Stoppable(Protocol):
    """An engine that can end within a unit and keep what it has: where a prompt takes long, or is paid for."""

    def stop(self, reason: str) -> None:
        """Calls of `answer` raise `Stopped` soon."""
        ...


@runtime_checkable
class Shares(Protocol):
    """An engine that was started for `Sharing`. The base itself is never asked: beside an adapter's rows it would not be itself."""

    def take(self, checkpoint: Checkpoint) -> Swap:
        """Takes one more adapter, beside those that it has, while it answers for them; the longest idle one makes room.

        Raises `SwapRefused` or `EngineError` where it cannot, or where it is not proven that it applies it.
        """
        ...

    def answer_as(self, digest: str, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """As `answer`, for the adapter of that digest, which was taken before."""
        ...


class Engine(Protocol):
    """One model, ready. `answer` may be called from several threads at once: their prompts share the engine's batches."""

    @property
    def facts(self) -> EngineFacts: ...

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. A prompt that cannot be answered has `error`; an engine that is broken raises.

        An engine whose answers are paid for may raise `Stopped` with those that it has.
        """
        ...

    def swap(self, checkpoint: Checkpoint) -> Swap:
        """Takes another checkpoint in place of its own; no call of `answer` may be open.

        Raises `SwapRefused` where it cannot, and is as it was. After any other error the engine is broken.
        """
        ...

    def close(self) -> None: ...
