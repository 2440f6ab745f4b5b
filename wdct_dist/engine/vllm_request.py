"""A request in vLLM's words, and how vLLM refuses one."""

from __future__ import annotations

from typing import Any

from wdct_dist.config.schema import SamplingConfig
from wdct_dist.engine.steps import Generation


class Params:
    """vLLM's parameters for requests, made once for all that are alike."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self._sampling = sampling
        self._made: dict[tuple[tuple[int, ...], int, tuple[str, ...]], Any] = {}

    def of(self, generation: Generation) -> Any:
        """A request's `SamplingParams`.

        It takes the logprobs that are read from the log-softmax of the raw logits in float32, whatever the temperature. `logprobs` stays
        unset: it would sort the vocabulary for its top tokens and be limited by `max_logprobs`. Beside requests that read, a request
        that reads nothing gets a row of its own, masked, of the sampler's table (`gather_specific_token_logprobs`).
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        key = generation.read, generation.max_tokens, generation.stop
        if generation.seed is None and key in self._made:
            return self._made[key]
        params = SamplingParams(
            temperature=0.0 if generation.seed is None else self._sampling.temperature,
            top_p=1.0 if generation.seed is None else self._sampling.top_p,
            seed=generation.seed,
            max_tokens=generation.max_tokens,
            stop=list(generation.stop),
            logprob_token_ids=list(generation.read) or None,
            flat_logprobs=True,
            # only stop strings need vLLM's own text; tags of thinking can be special tokens
            detokenize=bool(generation.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # vLLM's deep copy of these for each request was a third of our cost of a prompt
        )
        if generation.seed is None:
            self._made[key] = params
        return params


def refusals() -> tuple[type[Exception], ...]:
    """How vLLM says that it will not take a request: by a `ValueError` in 0.26, by a class of its own in 0.32."""
    from vllm import exceptions

    return (ValueError, TypeError, getattr(exceptions, "VLLMClientError", ValueError))
