"""The life of a prompt inside an engine: asked by a call, worked on request by request, answered. Pure, without vLLM."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import Any

from wdct_dist.engine.protocol import Response
from wdct_dist.engine.steps import Generated, Generation, Steps
from wdct_dist.engine.vllm_failure import one_line
from wdct_dist.errors import BadInput, EngineError
from wdct_dist.prompts.types import Prompt

Answers = queue.SimpleQueue[tuple[int, Response] | EngineError]
"""What a call of `answer` waits on: (place in the call, response), or why there will be none."""


@dataclass(slots=True, eq=False)
class Asked:
    """A prompt of one call, and what it waits for."""

    prompt: Prompt
    trial: int
    steps: Steps
    place: int
    answers: Answers
    adapter: Any | None = None
    """vLLM's request for the adapter that the prompt is for."""
    generated: dict[int, Generated] = field(default_factory=dict)
    num_awaited: int = 0
    over: bool = False

    def begin(self) -> list[Request]:
        """The prompt's first requests."""
        return self._advance(None)

    def take(self, number: int, output: Any) -> list[Request]:
        """Takes the output of one request; the prompt's next requests once all have come, none where it is answered."""
        if self.over:
            return []
        try:
            self.generated[number] = _generated(output)
        except EngineError as error:
            self.refuse(error)
            return []
        if len(self.generated) < self.num_awaited:
            return []
        return self._advance([self.generated[place] for place in range(self.num_awaited)])

    def _advance(self, generated: list[Generated] | None) -> list[Request]:
        try:
            wanted = next(self.steps) if generated is None else self.steps.send(generated)
        except StopIteration as end:
            self.finish(end.value)
            return []
        except (EngineError, BadInput) as error:  # of this prompt alone, such as a logprob that is no number
            self.refuse(error)
            return []
        self.generated = {}
        self.num_awaited = len(wanted)
        return [Request(one, self, number, begins=generated is None) for number, one in enumerate(wanted)]

    def refuse(self, error: Exception) -> None:
        """Answers the prompt with why there is no answer."""
        self.steps.close()
        self.finish(Response(self.prompt.prompt_id, self.trial, error=one_line(error)))

    def finish(self, response: Response) -> None:
        """Hands the response to the call that waits for it."""
        self.over = True
        self.answers.put((self.place, response))


@dataclass(frozen=True, slots=True)
class Request:
    """One of the requests that a prompt waits for."""

    generation: Generation
    asked: Asked
    number: int
    begins: bool
    """Whether it is of the prompt's first ones."""


def _generated(output: Any) -> Generated:
    """Raises `EngineError` where vLLM gave a request up."""
    reply = output.outputs[0]
    if reply.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM gave a request up (finish reason: {reply.finish_reason}).")
    logprobs: dict[int, float] = {}
    if reply.logprobs is not None and len(reply.logprobs) > 0:
        first = slice(reply.logprobs.start_indices[0], reply.logprobs.end_indices[0])
        logprobs.update(zip(reply.logprobs.token_ids[first], reply.logprobs.logprobs[first], strict=True))
    # of a stop token vLLM gives the id
    stop = reply.stop_reason if isinstance(reply.stop_reason, str) else None
    return Generated(tuple(reply.token_ids), logprobs, reply.finish_reason, stop, output.num_cached_tokens)
