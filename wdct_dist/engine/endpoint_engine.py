"""A model behind an OpenAI-compatible API as an engine.

An event loop in a thread of its own keeps up to `engine.endpoint.concurrency` requests under way, over all calls of `answer`: the next
unit's prompts fill the places that the present one leaves. What is asked about a prompt is in `endpoint_steps.py`, how the server is
asked in `endpoint_client.py`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import EndpointApi, EndpointConfig, PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.engine.endpoint_client import Denied, EndpointClient, Exhausted, Halted, Refused
from wdct_dist.engine.endpoint_key import api_key
from wdct_dist.engine.endpoint_limits import Budget, Usage, budget_limits
from wdct_dist.engine.endpoint_replies import Reply
from wdct_dist.engine.endpoint_steps import Asker, Form, Turn
from wdct_dist.engine.protocol import EngineFacts, Response, Stopped, Swap
from wdct_dist.errors import BadInput, CheckpointError, EngineError, SwapRefused
from wdct_dist.prompts.types import Message, Prompt

PATHS = {EndpointApi.chat: "chat/completions", EndpointApi.completions: "completions"}

PROBE = Prompt(
    prompt_id="probe",
    item_id="probe",
    domain="",
    side="word",
    variant="probe",
    language="en",
    permutation=(0, 1),
    labels=("A", "B"),
    messages=(Message("user", "Which letter comes first in the alphabet? Reply with A or B."),),
    mode="score",
)
"""Asked once when an engine starts: whether the key, the model and the settings are accepted shows before any real prompt is sent."""

PROBE_ATTEMPTS = 3

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class EndpointEngine:
    """One model behind an API, ready to answer; started by the constructor."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: EndpointConfig,
        prompt: PromptConfig,
        sampling: SamplingConfig,
        spent: Mapping[str, float],
    ) -> None:
        """`spent`: what the run has used before, by the name of the limit (see `budget_limits`).

        Raises `CheckpointError` where the server does not accept the key, the model or a setting, `EngineError` where it does not
        answer, `ConfigError` where there is no key.
        """
        self._settings = settings
        self._sampling = sampling
        self._model = checkpoint.source
        self._key = api_key(settings)
        self._budget = Budget(budget_limits(settings, self._model), spent)
        self._closed = False
        self._gate = threading.Lock()
        """Held while something is handed to the loop, so that it is handed over before the loop ends or not at all."""
        self._loop = asyncio.new_event_loop()
        # a daemon: a process that ends without close() must not hang on its requests
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint-engine", daemon=True)
        self._thread.start()
        try:
            self._client, self._asker, self._probed = self._wait(self._start(prompt))
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> EngineFacts:
        settings, fingerprints = self._settings, list(self._client.fingerprints)
        notes = ["the weights behind an API cannot be seen: the digest is that of base_url, model name and stated revision"]
        if settings.top_logprobs and not self._probed.places:
            notes.append("the server gives no logprobs: answers are read from the text of the replies alone")
        if len(fingerprints) > 1:
            notes.append("the server changed while it was asked: see system_fingerprints")
        return EngineFacts(
            kind="endpoint",
            versions={"aiohttp": _aiohttp_version()},
            hardware="behind an API",
            dtype="unknown",
            settings={
                "base_url": settings.base_url,
                "model": self._model,
                "served_model": self._probed.model,
                "system_fingerprints": fingerprints,
                "api": self._asker.form.api.value,
                "top_logprobs": settings.top_logprobs,
                "gives_logprobs": bool(self._probed.places),
                "continue_reply": settings.continue_reply,
                "concurrency": settings.concurrency,
                "requests_per_minute": settings.requests_per_minute,
                "tokens_per_minute": settings.tokens_per_minute,
            },
            notes=tuple(notes),
        )

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. Safe to call from several threads at once.

        Raises `Stopped` with the responses that there are where the budget is spent, the server is down for good, or `stop` was called.
        """
        answered = self._wait(self._answer(prompts, trial))
        if None in answered:
            raise Stopped(self._client.halted or "the engine was stopped", answered)
        return [response for response in answered if response is not None]

    def swap(self, checkpoint: Checkpoint) -> Swap:
        """Refuses: another model has a client, a probe and a budget of its own, and starting those costs one request."""
        raise SwapRefused("a model behind an API is asked by an engine of its own")

    def stop(self, reason: str) -> None:
        """Asks nothing more; calls of `answer` raise `Stopped` as soon as the requests under way have ended."""
        with self._gate:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._client.halt, reason)

    def close(self) -> None:
        """Ends all requests. Calls of `answer` that still wait raise `EngineError`."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._gate:
            if self._closed:
                work.close()
                raise EngineError("the engine is closed.")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise EngineError("the engine is closed.") from None

    # In the event loop.

    async def _start(self, prompt: PromptConfig) -> tuple[EndpointClient, Asker, Reply]:
        wanted = self._settings.api
        if wanted is EndpointApi.auto and prompt.format is PromptFormat.plain:
            wanted = EndpointApi.completions
        if wanted is not EndpointApi.auto:
            return await self._probe(wanted, prompt)
        try:
            return await self._probe(EndpointApi.chat, prompt)
        except CheckpointError as error:
            try:
                return await self._probe(EndpointApi.completions, prompt)
            except CheckpointError:
                raise error from None

    async def _probe(self, api: EndpointApi, prompt: PromptConfig) -> tuple[EndpointClient, Asker, Reply]:
        """A client of this form of the API, once it has answered."""
        top, chat = self._settings.top_logprobs, api is EndpointApi.chat
        fields: dict[str, Any] = {"temperature": self._sampling.temperature}
        if self._sampling.temperature > 0:
            fields["top_p"] = self._sampling.top_p
        if top:
            fields |= {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": top}
        client = EndpointClient(self._settings, PATHS[api], self._model, self._key, fields, self._budget)
        asker = Asker(Form(api, self._settings.continue_reply), self._sampling, top)
        # with the run's own limit: models that reason refuse one token
        turn = next(asker.begin(replace(PROBE, reply_tokens=prompt.reply_tokens), 0))
        try:
            reply, _ = await client.complete(turn, PROBE_ATTEMPTS)
            return client, asker, reply
        except (Refused, Denied) as error:
            await client.close()
            key = "" if self._settings.api_key_env is None else f"the key in {self._settings.api_key_env}, "
            limit = f"{self._settings.max_tokens_field} = {turn.max_tokens} (prompt.reply_tokens)"
            raise CheckpointError(
                f"{error} Check {key}the model's name, and the settings of engine.endpoint that the server may not take: api, extra, "
                f"top_logprobs = {top}, {limit}."
            ) from None
        except Exhausted as error:
            await client.close()
            raise EngineError(f"{error} See that the server runs and that engine.endpoint.base_url is right.") from None
        except Halted:
            await client.close()
            raise EngineError(f"{client.halted}: raise it, or give another run_dir.") from None

    async def _answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response | None]:
        transient: set[str] = set()
        answered = await asyncio.gather(*(self._answer_one(prompt, trial, transient) for prompt in prompts))
        if self._client.server_is_down:
            # what a dead server did not answer is not an answer: it is asked again when the run goes on
            return [None if response is not None and response.prompt_id in transient else response for response in answered]
        return list(answered)

    async def _answer_one(self, prompt: Prompt, trial: int, transient: set[str]) -> Response | None:
        """The response, or None where asking was halted. Its tokens are those of all turns, as they are paid for."""
        steps = self._asker.begin(prompt, trial)
        usage, reported = Usage(), True
        cached: int | None = None
        reply: Reply | None = None
        try:
            while True:
                turn: Turn = next(steps) if reply is None else steps.send(reply)
                reply, used = await self._client.complete(turn)
                usage, reported = usage + used, reported and reply.usage is not None
                if reply.num_cached_tokens is not None:
                    cached = (cached or 0) + reply.num_cached_tokens
        except StopIteration as end:
            response: Response = end.value
        except Halted:
            return None
        except Denied as error:
            self._client.halt(str(error))
            return None
        except (Refused, Exhausted, BadInput, EngineError) as error:
            if isinstance(error, Exhausted):
                transient.add(prompt.prompt_id)
            response = Response(prompt.prompt_id, trial, error=" ".join(str(error).split()))
        except Exception as error:  # a reply that we cannot read must not cost the others, which are paid for
            logger.exception("The reply to prompt %s could not be read.", prompt.prompt_id)
            response = Response(prompt.prompt_id, trial, error=f"the reply could not be read ({type(error).__name__}: {error})"[:500])
        if not reported or reply is None:
            return response
        return replace(response, num_prompt_tokens=usage.input, num_cached_tokens=cached, num_output_tokens=usage.output)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "_client"):
            await self._client.close()


def _aiohttp_version() -> str:
    from importlib.metadata import version

    return version("aiohttp")
