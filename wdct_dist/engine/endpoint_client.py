"""Asks an API over HTTP, as fast as it may be asked and as often as it takes. The only file that imports aiohttp.

One client serves one event loop. A request waits for a free place, its turn by the rates, a pause that the server asked for and its
share of the budget; what fails in passing is tried again. The key is in the headers of the requests and nowhere else: where a server
repeats it, it is cut out of what it says before anything reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.engine.endpoint_limits import TRANSIENT, Budget, Pace, TokenEstimate, Usage, pause_s, retry_after_s
from wdct_dist.engine.endpoint_replies import MalformedReply, Reply, error_status, error_text, is_filtered, read_reply
from wdct_dist.engine.endpoint_steps import Turn

LONGEST_WAIT_S = 600.0
"""A server that asks to wait longer than this has ended the run for now."""

PATIENCE = 5
"""Prompts that are given up in a row, without an answer between them, after which the server is taken to be down."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(Exception):
    """The server will not answer this prompt."""


class Denied(Exception):
    """The server will not answer anything: the key, the model or the address is wrong."""


class Exhausted(Exception):
    """The server failed at this prompt every time."""


class Halted(Exception):
    """Nothing more is asked; `EndpointClient.halted` says why."""


class EndpointClient:
    """Sends turns to one model. Made and used in a running event loop."""

    def __init__(
        self, settings: EndpointConfig, path: str, model: str, key: str | None, sampling: Mapping[str, Any], budget: Budget
    ) -> None:
        """`path`: of the API below its base address. `sampling`: fields of every request."""
        assert settings.base_url is not None  # proven by the configuration's check
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/{path}"
        self._key = key.encode() if key else None
        self._budget = budget
        self._fields = {"model": model, **sampling}
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._requests = Pace(settings.requests_per_minute) if settings.requests_per_minute else None
        self._tokens = Pace(settings.tokens_per_minute) if settings.tokens_per_minute else None
        self._estimate = TokenEstimate()
        self._random = random.Random()
        self._paused_until = 0.0
        self._given_up_in_a_row = 0
        self._halting = asyncio.Event()
        self._settled = asyncio.Event()
        self.halted: str | None = None
        """Why nothing more is asked, or None."""
        self.server_is_down = False
        self.fingerprints: dict[str, None] = {}
        """Every `system_fingerprint` seen, in order."""
        secret = {}
        if key:
            secret[settings.api_key_header] = f"Bearer {key}" if settings.api_key_header.lower() == "authorization" else key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            headers={"Content-Type": "application/json", "Accept": "application/json", **secret},
            # proxies of the environment, but not to this machine
            trust_env=urlsplit(settings.base_url).hostname not in LOOPBACK,
        )

    async def close(self) -> None:
        await self._session.close()

    def halt(self, reason: str) -> None:
        """Asks nothing more; what is under way may end."""
        self.halted = self.halted or reason
        self._halting.set()
        self._settled.set()

    async def complete(self, turn: Turn, max_attempts: int | None = None) -> tuple[Reply, Usage]:
        """The reply to a turn, and the tokens that it took (an estimate where the server does not say).

        Raises `Refused`, `Denied`, `Exhausted` or `Halted`.
        """
        body = json.dumps(self._body(turn)).encode()
        worst = Usage(self._estimate.tokens(turn.num_characters), turn.max_tokens)
        attempts = max_attempts or self._settings.max_attempts
        async with self._slots:
            for attempt in range(1, attempts + 1):
                await self._turn_to_ask(worst)
                used = Usage()
                try:
                    reply, used, why = await self._ask(body, worst)
                finally:
                    self._settle(worst, used)
                if reply is not None:
                    self._given_up_in_a_row = 0
                    if reply.usage is not None:
                        self._estimate.learn(turn.num_characters, reply.usage.input)
                    if reply.fingerprint is not None:
                        self.fingerprints[reply.fingerprint] = None
                    return reply, used
                if attempt < attempts:
                    await self._sleep(pause_s(attempt, self._settings.backoff_s, self._random))
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= PATIENCE and max_attempts is None:
            self.server_is_down = True
            self.halt(f"{self._settings.base_url} has not answered {PATIENCE} prompts in a row, each asked {attempts} times ({why})")
        raise Exhausted(f"no answer from {self._settings.base_url} in {attempts} attempts; the last time: {why}.")

    def _body(self, turn: Turn) -> dict[str, Any]:
        body = {**self._fields, **turn.asked, self._settings.max_tokens_field: turn.max_tokens}
        if turn.stop:
            body["stop"] = list(turn.stop)
        if turn.seed is not None:
            body["seed"] = turn.seed
        body |= self._settings.extra
        return {name: value for name, value in body.items() if value is not None}

    async def _ask(self, body: bytes, worst: Usage) -> tuple[Reply | None, Usage, str]:
        """(reply, tokens, ""), or (None, tokens, why) for a failure that may pass.

        Where no answer came that says what it took, the server may have charged for all of it.
        """
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                raw = await response.read()
                status, headers = response.status, response.headers
        except TimeoutError:
            return None, worst, f"no answer within engine.endpoint.timeout_s = {self._settings.timeout_s:g}"
        except (aiohttp.ClientError, OSError) as error:
            return None, worst, f"the connection failed ({type(error).__name__}: {self._without_key(str(error))[:160]})"
        text = self._without_key(raw.decode("utf-8", "replace"))
        parsed = None
        with contextlib.suppress(ValueError):
            parsed = json.loads(text)
        if status == 200 and (meant := error_status(parsed)) is not None:
            status = meant
        if status != 200 and is_filtered(parsed):
            return Reply("", "content_filter", (), None, None, None, None), worst, ""
        if status != 200:
            self._raise_for(status, error_text(parsed, text), text)
            self._heed(retry_after_s(headers))
            return None, Usage(), f"status {status}: {error_text(parsed, text)}"
        try:
            if parsed is None:
                raise MalformedReply("it is no JSON")
            reply = read_reply(parsed)
        except MalformedReply as error:
            return None, worst, f"the answer cannot be read: {error}"
        return reply, reply.usage or Usage(worst.input, min(worst.output, len(reply.text))), ""

    def _raise_for(self, status: int, said: str, text: str) -> None:
        """For a failure that will not pass."""
        if status in (401, 402, 403) or "insufficient_quota" in text:
            raise Denied(f"{self._settings.base_url} does not accept the request (status {status}: {said})")
        if status in (404, 405) or 300 <= status < 400:
            raise Denied(f"{self._url} is not there, or does not know the model {self._fields['model']!r} (status {status}: {said})")
        if status not in TRANSIENT and status < 500:
            raise Refused(f"the server refuses this prompt (status {status}: {said}).")

    def _heed(self, seconds: float | None) -> None:
        """Nothing is asked for as long as the server wants."""
        if seconds is None:
            return
        if seconds > LONGEST_WAIT_S:
            self.halt(f"{self._settings.base_url} asks to wait for {seconds:,.0f} s")
            raise Halted
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    async def _turn_to_ask(self, worst: Usage) -> None:
        if self._halting.is_set():
            raise Halted
        wait = 0.0
        for pace, amount in ((self._requests, 1), (self._tokens, worst.input + worst.output)):
            if pace is not None:
                wait = max(wait, pace.take(amount, time.monotonic()))
        if wait:
            await self._sleep(wait)
        while (left := self._paused_until - time.monotonic()) > 0:
            await self._sleep(left)
        while not self._budget.reserve(worst):
            if (name := self._budget.exceeded_by(worst)) is not None:
                self.halt(f"the budget {name} is spent")
            self._settled.clear()
            if self._halting.is_set():
                raise Halted
            await self._settled.wait()

    def _settle(self, worst: Usage, used: Usage) -> None:
        self._budget.settle(worst, used)
        self._settled.set()
        if self._tokens is not None:
            self._tokens.give_back(worst.input + worst.output - used.input - used.output)

    async def _sleep(self, seconds: float) -> None:
        """Unless it is halted before that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halting.wait()
                raise Halted

    def _without_key(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key.decode(), "[key]")
