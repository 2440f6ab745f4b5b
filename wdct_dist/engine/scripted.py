"""An engine without a model: deterministic pseudo-answers, for dry runs, tests of the cluster and measurements of everything else.

Its answer to a prompt depends on the prompt's messages and labels, the checkpoint's digest and, where text is sampled
(`sampling.temperature` above 0), on the trial; never on batches, order or shards. Without a bias each prompt's answer is drawn
by itself, the other order of the same item too, so the consistency score comes out at chance. Its reasoning is always the same, and
its answer depends on that too; an answer slot gets its answer to the messages before it. Tokens of a prompt are its characters, those
of a reply its words.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wdct_dist import __version__
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import SamplingConfig, ScriptedBias, ScriptedConfig
from wdct_dist.engine.protocol import EngineFacts, Response, Swap
from wdct_dist.engine.slot import filled, first_turn, label_said, slot_place
from wdct_dist.errors import EngineError
from wdct_dist.prompts.permute import by_option
from wdct_dist.prompts.types import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED_BYTES = 16

REASONING = "Belief: what I would do follows from what I hold to be right, and both options can be defended."


class ScriptedEngine:
    """Answers like an engine with one model, one call after the other; `settings` say how it leans and how it fails."""

    def __init__(self, checkpoint: Checkpoint, settings: ScriptedConfig, sampling: SamplingConfig) -> None:
        """Raises `EngineError` for a checkpoint that `fail_start` names."""
        _refuse_named(checkpoint, "start", settings.fail_start)
        self._settings = settings
        self._sampling = sampling
        self._checkpoint = checkpoint
        self._busy = threading.Lock()
        self._closed = threading.Event()
        self._num_swaps = 0

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            kind="scripted",
            versions={"wdct_dist": __version__},
            hardware="none",
            dtype="float64",
            settings={
                "bias": self._settings.bias.value,
                "strength": self._settings.strength,
                "spread": self._settings.spread,
                "delay_s": self._settings.delay_s,
            },
            notes=("pseudo-answers: no model was run",),
            num_swaps=self._num_swaps,
        )

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. Raises `EngineError` when closed, at once, also while it waits out `delay_s`."""
        with self._busy:  # one model: a second call waits for the first, as it would for a GPU
            if self._closed.wait(self._settings.delay_s * len(prompts)):
                raise EngineError("the scripted engine is closed.")
            return self._answer(prompts, trial) if prompts else []

    def swap(self, checkpoint: Checkpoint) -> Swap:
        """Takes any checkpoint. Raises `EngineError` for one that `fail_swap` or `fail_start` names, and is then closed."""
        with self._busy:
            if self._closed.is_set():
                raise EngineError("the scripted engine is closed.")
            try:
                _refuse_named(checkpoint, "start", self._settings.fail_start)
                _refuse_named(checkpoint, "swap", self._settings.fail_swap)
            except EngineError:
                self.close()
                raise
            self._checkpoint = checkpoint
            self._num_swaps += 1
        return Swap(self.facts, load_s=0.0, canary=None)

    def close(self) -> None:
        self._closed.set()

    def _answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        asked, said = self._filled(prompts, trial)
        words = REASONING.split(" ")
        limit = self._sampling.max_new_tokens
        reasoning = " ".join(words[:limit])
        texts = [_text(prompt, reasoning) for prompt in asked]
        if self._settings.fail_on is not None and any(self._settings.fail_on in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._settings.hang_on is not None and any(self._settings.hang_on in text for text in texts):
            threading.Event().wait()
        drawn = self._draw(asked, texts, trial)
        columns = (drawn.logprobs, drawn.mass, drawn.chosen, drawn.seeds, drawn.digests)
        responses = []
        for prompt, in_slot, text, values, label_mass, chosen, seed, digest in zip(asked, said, texts, *columns, strict=True):
            if self._settings.error_on is not None and self._settings.error_on in text:
                error = f"the prompt contains engine.scripted.error_on ({self._settings.error_on!r})."
                responses.append(Response(prompt.prompt_id, trial, error=error))
                continue
            num_prompt_tokens = len(text)
            reply, num_words, finish_reason = prompt.labels[chosen], 1, "length"
            if prompt.reply_tokens is not None:
                reply, num_words, finish_reason = _reply(prompt, chosen, seed[0])
            reasons = prompt.mode == "reason"
            if reasons:
                finish_reason = "length" if len(words) > limit else "stop"
                num_words += min(len(words), limit)
                num_prompt_tokens -= len(reasoning) + len(prompt.answer_cue or "") + 2
            responses.append(
                Response(
                    prompt_id=prompt.prompt_id,
                    trial=trial,
                    option_logprobs=by_option(values[: len(prompt.labels)], prompt.permutation),
                    label_mass=label_mass,
                    text=reply,
                    reasoning=reasoning if reasons else None,
                    rendered_digest=digest,
                    finish_reason=finish_reason,
                    num_prompt_tokens=num_prompt_tokens,
                    num_cached_tokens=0,
                    num_output_tokens=num_words + (in_slot is not None),
                    said=in_slot,
                )
            )
        return responses

    def _filled(self, prompts: Sequence[Prompt], trial: int) -> tuple[list[Prompt], list[str | None]]:
        """The prompts with the engine's answer in their slots, and what was put there; None where there is no slot."""
        asked: list[Prompt] = list(prompts)
        said: list[str | None] = [None] * len(asked)
        slots = [(place, slot) for place, prompt in enumerate(asked) if (slot := slot_place(prompt)) is not None]
        if slots:
            turns = [first_turn(asked[place], slot) for place, slot in slots]
            drawn = self._draw(turns, [_text(turn, "") for turn in turns], trial)
            for (place, slot), values in zip(slots, drawn.logprobs, strict=True):
                prompt = asked[place]
                label = label_said(prompt, trial, values[: len(prompt.labels)], self._sampling)
                asked[place], said[place] = filled(prompt, slot, label), label
        return asked, said

    def _draw(self, prompts: Sequence[Prompt], texts: Sequence[str], trial: int) -> _Drawn:
        import numpy as np

        key = hashlib.blake2b(
            f"{self._checkpoint.digest} {trial if self._sampling.temperature > 0 else '-'}".encode(), digest_size=32
        ).digest()
        digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10) for text in texts]
        seed_bytes = [
            hashlib.blake2b(repr(prompt.labels).encode() + digest.digest(), digest_size=SEED_BYTES, key=key).digest()
            for digest, prompt in zip(digests, prompts, strict=True)
        ]
        seeds = np.frombuffer(b"".join(seed_bytes), dtype="<u8").reshape(-1, SEED_BYTES // 8)
        num_labels = np.array([len(prompt.labels) for prompt in prompts])
        logprobs, mass = _label_logprobs(seeds, num_labels, self._settings)
        chosen = np.argmax(logprobs, axis=1).tolist()
        return _Drawn(logprobs.tolist(), mass.tolist(), chosen, seed_bytes, [digest.hexdigest() for digest in digests])


def _refuse_named(checkpoint: Checkpoint, action: str, named: str | None) -> None:
    if named is not None and named in checkpoint.checkpoint_id:
        raise EngineError(
            f"the scripted engine does not {action} for {checkpoint.checkpoint_id}: its name contains "
            f"engine.scripted.fail_{action} ({named!r})."
        )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the engine draws for some prompts; columns of the same length."""

    logprobs: list[list[float]]
    """By label place [prompts, most labels]."""
    mass: list[float]
    chosen: list[int]
    """Place of the most probable label."""
    seeds: list[bytes]
    digests: list[str]


def _text(prompt: Prompt, reasoning: str) -> str:
    """All that the answer depends on."""
    contents = [message.content for message in prompt.messages]
    if prompt.mode == "reason":
        contents += [reasoning, prompt.answer_cue or ""]
    return "\0".join(contents)


def _reply(prompt: Prompt, chosen: int, form: int) -> tuple[str, int, str]:
    """The text of a reply of several words, their number, and why it ends: the label in one of several forms."""
    label, limit = prompt.labels[chosen], prompt.reply_tokens
    asked = next((message.content for message in reversed(prompt.messages) if message.role == "user"), "")
    line = re.search(rf"^{re.escape(label)}[.):]? (.+)$", asked, re.MULTILINE)
    forms = [label, f"{label}.", f"The answer is {label}.", f"{label}. {line[1]}" if line else f"I choose {label}."]
    words = forms[form % len(forms)].split(" ")
    return " ".join(words[:limit]), len(words[:limit]), "length" if limit is not None and len(words) > limit else "stop"


def _label_logprobs(seeds: NDArray[Any], num_labels: NDArray[Any], settings: ScriptedConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logprobs by label place [prompts, most labels] (minus infinity behind a prompt's last label), and label masses [prompts].

    Columns are worked one after the other, so that a row does not depend on the width or height of the table it is in.
    """
    import numpy as np

    num_prompts, width = len(seeds), int(num_labels.max())
    logits = np.empty((width, num_prompts))
    for place in range(width):
        logits[place] = settings.spread * _normal(_mixed(seeds[:, 0], place), _mixed(seeds[:, 1], place))
    if settings.bias is ScriptedBias.tie:
        logits[:] = 0.0
    elif settings.bias is ScriptedBias.first:
        logits[0] += settings.strength
    elif settings.bias is ScriptedBias.last:
        logits[num_labels - 1, np.arange(num_prompts)] += settings.strength
    logits[np.arange(width)[:, None] >= num_labels] = -np.inf
    logits -= logits.max(axis=0)
    total = np.zeros(num_prompts)
    for place in range(width):
        total += np.exp(logits[place])
    # 52 random bits and a half: above 0 and below 1, so the mass is above 0.5 and below 1
    mass: NDArray[Any] = 0.5 + 0.5 * ((_mixed(seeds[:, 0], -1) >> np.uint64(12)) + 0.5) / 2.0**52
    logprobs: NDArray[Any] = np.ascontiguousarray((logits - np.log(total) + np.log(mass)).T)
    return logprobs, mass


def _mixed(seeds: NDArray[Any], place: int) -> NDArray[Any]:
    """A new random word from each seed for each place: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    import numpy as np

    z = seeds + np.uint64((place + 2) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _normal(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Standard normal, nearly: the sum of eight uniform 16-bit numbers. Whole numbers up to the last step, so exact anywhere."""
    import numpy as np

    total = np.zeros(len(first))
    for word in (first, second):
        for shift in (0, 16, 32, 48):
            total += (word >> np.uint64(shift)) & np.uint64(0xFFFF)
    normal: NDArray[Any] = (total - 8 * 65535 / 2) / ((65536**2 - 1) * 8 / 12) ** 0.5
    return normal
