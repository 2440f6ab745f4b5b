"""A real HTTP server that speaks the OpenAI API like a model would, and misbehaves when it is told to.

What it answers depends on the question alone, so that two runs agree. In a process of its own:

    python tests/api_server.py PORT_FILE LOG_FILE '{"delay_s": 0.05}'

or in a thread (`running`). It logs each request that it has answered well, one JSON a line, so that tests can count.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "503", "drop", "slow", "malformed", "truncated", "empty", "nan")
"""What it can do instead of answering."""


@dataclass
class Behaviour:
    """How the server behaves."""

    delay_s: float = 0.0
    logprobs: bool = True
    """Gives them when asked."""
    some_logprobs: bool = False
    """Leaves them out at random."""
    usage: bool = True
    hidden: float = 0.0
    """Share of questions whose least probable label is not among the tokens shown."""
    prose: float = 0.0
    """Share of questions that are answered in words, with no label among the tokens shown."""
    faults: tuple[str, ...] = ()
    """Faults to choose from."""
    fault_share: float = 0.0
    """How often a request meets one."""
    retry_after: str = "0.05"
    most_faults: int | None = None
    """After so many it has no more of them."""
    broken: str | None = None
    """Questions that contain this meet a fault each time."""
    slow_s: float = 30.0
    key: str | None = None
    """The key that it wants; it repeats what it was given in its refusals, and in its replies."""
    models: tuple[str, ...] = ("tiny",)
    chat: bool = True
    refuse: str | None = None
    """Questions that contain this are refused with 400."""
    fields: tuple[str, ...] = ()
    """Fields that it refuses with 400."""
    dies_after: int | None = None
    """After so many answers it only says 503."""
    holds_until: int | None = None
    """Answers nothing before so many requests have been open at once, or a minute is over."""
    seed: int = 0


@dataclass
class Server:
    """The behaviour, and what came."""

    behaviour: Behaviour
    log: Path | None = None
    answered: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests that were answered well, in order."""
    num_requests: int = 0
    num_open: int = 0
    most_open: int = 0
    num_faults: int = 0
    times: list[float] = field(default_factory=list)
    """When requests came, by the loop's clock."""
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._random = random.Random(self.behaviour.seed)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.num_requests += 1
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        self.times.append(asyncio.get_running_loop().time())
        self.headers.append(dict(request.headers))
        try:
            return await self._answer(request)
        finally:
            self.num_open -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        how, body = self.behaviour, await request.json()
        given = request.headers.get("Authorization", request.headers.get("api-key", ""))
        if how.key is not None and given.removeprefix("Bearer ") != how.key:
            return refusal(401, f"Incorrect API key provided: {given}")
        chat = request.path.endswith("/chat/completions")
        if (chat and not how.chat) or body.get("model") not in how.models:
            return refusal(404, f"The model {body.get('model')!r} does not exist")
        if unknown := [name for name in how.fields if name in body]:
            return refusal(400, f"Unsupported parameter: {unknown[0]}")
        asked = "\n".join(message["content"] for message in body["messages"]) if chat else body["prompt"]
        if how.refuse is not None and how.refuse in asked:
            return refusal(400, f"This content is refused. Key {given}")
        if how.dies_after is not None and len(self.answered) >= how.dies_after:
            return refusal(503, "down")
        if how.holds_until is not None:
            await self._hold(how.holds_until)
        if how.delay_s:
            await asyncio.sleep(how.delay_s)
        if self._fails(asked):
            self.num_faults += 1
            fault = self._random.choice(how.faults)
            if fault not in ("nan", "empty"):
                return await self._misbehave(request, fault)
            self.answered.append(body)
            self.answered.pop()
            broken = completion(body, asked, chat, how)
            if fault == "empty":
                broken["choices"] = []
            elif chat and broken["choices"][0]["logprobs"]:
                broken["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = math.nan
            else:
                return await self._misbehave(request, "malformed")
            return web.Response(text=json.dumps(broken), content_type="application/json")
        said = completion(body, asked, chat, how)
        if how.some_logprobs and self._random.random() < 0.5:
            said["choices"][0]["logprobs"] = None
        if how.key is not None:
            said["id"] = f"for {given}"
        self.answered.append(body)
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(json.dumps(body) + "\n")
        return web.json_response(said)

    async def _hold(self, num_open: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while self.most_open < num_open:
                    await asyncio.sleep(0.005)

    def _fails(self, asked: str) -> bool:
        how = self.behaviour
        if not how.faults or (how.most_faults is not None and self.num_faults >= how.most_faults):
            return False
        return self._random.random() < how.fault_share or (how.broken is not None and how.broken in asked)

    async def _misbehave(self, request: web.Request, fault: str) -> web.StreamResponse:
        match fault:
            case "429":
                return refusal(429, "slow down", {"Retry-After": self.behaviour.retry_after})
            case "500" | "503":
                return refusal(int(fault), "an error of the server's")
            case "slow":
                await asyncio.sleep(self.behaviour.slow_s)
                return web.json_response({})
            case "malformed":
                return web.Response(text='{"choices": [{"mess', content_type="application/json")
            case "truncated":
                response = web.StreamResponse(headers={"Content-Length": "4000"})
                await response.prepare(request)
                await response.write(b'{"choices"')
        assert request.transport is not None
        request.transport.close()
        return web.Response()


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status, headers=headers)


def completion(body: dict[str, Any], asked: str, chat: bool, how: Behaviour) -> dict[str, Any]:
    """A reply whose first token is a label, drawn from probabilities that depend on the question."""
    draw = random.Random(hashlib.sha256(asked.encode()).digest())
    labels = ["A", "B", "C"] if "\nC. " in asked else ["A", "B"]
    weights = [math.exp(2 * draw.gauss(0, 1)) for _ in labels]
    probs = {label: 0.9 * weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    best = max(probs, key=lambda label: probs[label])
    # two spellings of each label, as real vocabularies have
    tokens = {label: 0.8 * prob for label, prob in probs.items()} | {f" {label}": 0.2 * prob for label, prob in probs.items()}
    text = f"{best}. That is my answer."
    if draw.random() < how.prose:
        tokens, text = {"I": 0.97, "As": 0.001}, f"I would say that the answer is {best}."
    elif draw.random() < how.hidden:
        worst = min(probs, key=lambda label: probs[label])
        tokens = {token: prob for token, prob in tokens.items() if token.strip() != worst} | {"The": 1e-5}
    words = text.split(" ")[: body.get("max_tokens", body.get("max_completion_tokens", 16))]
    text, top = " ".join(words), sorted(tokens.items(), key=lambda pair: -pair[1])
    logprobs: dict[str, Any] | None = None
    first = text[:1]
    if how.logprobs and body.get("logprobs"):
        shown = top[: body["top_logprobs"] if chat else body["logprobs"]]
        if chat:
            listed = [{"token": token, "logprob": math.log(prob)} for token, prob in shown]
            logprobs = {"content": [{"token": first, "logprob": math.log(top[0][1]), "top_logprobs": listed}]}
        else:
            logprobs = {"tokens": [first], "top_logprobs": [{token: math.log(prob) for token, prob in shown}]}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": logprobs}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    said = {"id": "x", "model": body["model"], "system_fingerprint": "fp_test", "choices": [choice]}
    if how.usage:
        said["usage"] = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(words)}
    return said


def application(server: Server) -> web.Application:
    app = web.Application()
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.router.add_post(path, server.answer)
    return app


@contextlib.contextmanager
def running(**behaviour: Any) -> Iterator[Server]:
    """The server in a thread of this process."""
    server = Server(Behaviour(**behaviour))
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(server), shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server.url = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    """The server in this process, until it is killed."""
    port_file, log, behaviour = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])

    async def serve() -> None:
        runner = web.AppRunner(application(Server(Behaviour(**behaviour), log)))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port_file.write_text(json.dumps({"port": runner.addresses[0][1], **asdict(Behaviour(**behaviour))}))
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
