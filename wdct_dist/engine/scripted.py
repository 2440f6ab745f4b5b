"""An engine without a model: deterministic pseudo-answers, for dry runs, tests of the cluster and measurements of everything else.

Its answer to a prompt depends on the prompt's messages and labels, the checkpoint's digest and, where text is sampled
(`sampling.temperature` above 0), on the trial; never on batches, order or shards. Without a bias each prompt's answer is drawn
by itself, the other order of the same item too, so the consistency score comes out at chance. Its tokens are the text's characters.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wdct_dist import __version__
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import SamplingConfig, ScriptedBias, ScriptedConfig
from wdct_dist.engine.protocol import EngineFacts, Response
from wdct_dist.errors import EngineError
from wdct_dist.prompts.permute import by_option
from wdct_dist.prompts.types import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED_BYTES = 16


class ScriptedEngine:
    """Answers like an engine with one model, one call after the other; `settings` say how it leans and how it fails."""

    def __init__(self, checkpoint: Checkpoint, settings: ScriptedConfig, sampling: SamplingConfig) -> None:
        """Raises `EngineError` for a checkpoint that `fail_start` names."""
        if settings.fail_start is not None and settings.fail_start in checkpoint.checkpoint_id:
            raise EngineError(
                f"the scripted engine does not start for {checkpoint.checkpoint_id}: its name contains "
                f"engine.scripted.fail_start ({settings.fail_start!r})."
            )
        self._settings = settings
        self._sampling = sampling
        self._checkpoint = checkpoint
        self._busy = threading.Lock()
        self._closed = threading.Event()

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
        )

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. Raises `EngineError` when closed, at once, also while it waits out `delay_s`."""
        with self._busy:  # one model: a second call waits for the first, as it would for a GPU
            if self._closed.wait(self._settings.delay_s * len(prompts)):
                raise EngineError("the scripted engine is closed.")
            return self._answer(prompts, trial) if prompts else []

    def close(self) -> None:
        self._closed.set()

    def _answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        import numpy as np

        settings = self._settings
        key = hashlib.blake2b(
            f"{self._checkpoint.digest} {trial if self._sampling.temperature > 0 else '-'}".encode(), digest_size=32
        ).digest()
        texts = ["\0".join([message.content for message in prompt.messages]) for prompt in prompts]
        if settings.fail_on is not None and any(settings.fail_on in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10) for text in texts]
        seed_bytes = [
            hashlib.blake2b(repr(prompt.labels).encode() + digest.digest(), digest_size=SEED_BYTES, key=key).digest()
            for digest, prompt in zip(digests, prompts, strict=True)
        ]
        seeds = np.frombuffer(b"".join(seed_bytes), dtype="<u8").reshape(-1, SEED_BYTES // 8)
        num_labels = np.array([len(prompt.labels) for prompt in prompts])
        logprobs, mass = _label_logprobs(seeds, num_labels, settings)
        chosen = np.argmax(logprobs, axis=1).tolist()
        rows = zip(prompts, texts, logprobs.tolist(), mass.tolist(), chosen, digests, strict=True)
        return [
            Response(
                prompt_id=prompt.prompt_id,
                trial=trial,
                option_logprobs=by_option(values[: len(prompt.labels)], prompt.permutation),
                label_mass=label_mass,
                text=prompt.labels[label],
                rendered_digest=digest.hexdigest(),
                finish_reason="length",
                num_prompt_tokens=len(text),
                num_cached_tokens=0,
                num_output_tokens=1,
            )
            if settings.error_on is None or settings.error_on not in text
            else Response(prompt.prompt_id, trial, error=f"the prompt contains engine.scripted.error_on ({settings.error_on!r}).")
            for prompt, text, values, label_mass, label, digest in rows
        ]


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
