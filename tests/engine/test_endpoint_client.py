"""The client against a real server in its own loop: the fields of a request, redirects, proxies, and where the key does not go.

Retries, pauses, refusals, budgets and rates are tested through the engine, in test_endpoint_engine.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.engine.endpoint_client import Denied, EndpointClient
from wdct_dist.engine.endpoint_limits import Budget
from wdct_dist.engine.endpoint_replies import Reply
from wdct_dist.engine.endpoint_steps import Turn

KEY = "sk-test-0123456789"
PATH = "chat/completions"
TURN = Turn({"messages": [{"role": "user", "content": "A or B?"}]}, max_tokens=3, stop=("\n",), seed=7, num_characters=7)


@dataclass
class Server:
    """What came to it; whatever is not the API's path is answered too."""

    redirect_to: str | None = None
    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """Host and path, headers and body of each request."""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((f"{request.host}{request.path}", dict(request.headers), await request.json()))
        if self.redirect_to is not None and request.path == f"/v1/{PATH}":
            raise web.HTTPTemporaryRedirect(self.redirect_to)
        choice = {"message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    app = web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def complete(base_url: str, **settings: Any) -> Reply:
    client = EndpointClient(
        EndpointConfig(base_url=base_url, **settings), PATH, "tiny", KEY, {"temperature": 0.0, "top_p": 1.0}, Budget([], {})
    )
    try:
        return (await client.complete(TURN))[0]
    finally:
        await client.close()


def test_a_request_has_the_fields_of_the_run_of_the_turn_and_of_the_settings_which_come_last() -> None:
    async def asked() -> dict[str, Any]:
        async with running(Server()) as server:
            settings = {"max_tokens_field": "max_completion_tokens", "extra": {"top_p": None, "service_tier": "flex"}}
            assert (await complete(f"{server.url}/v1/", **settings)).text == "A"
            return server.asked[0][2]

    assert asyncio.run(asked()) == {
        "model": "tiny",
        "temperature": 0.0,
        "messages": TURN.asked["messages"],
        "max_completion_tokens": 3,
        "stop": ["\n"],
        "seed": 7,
        "service_tier": "flex",
    }


def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else() -> None:
    async def ask() -> list[str]:
        async with running(Server()) as elsewhere, running(Server(redirect_to=f"{elsewhere.url}/v1/stolen")) as server:
            with pytest.raises(Denied, match=r"is not there, or does not know the model 'tiny' \(status 307") as denied:
                await complete(f"{server.url}/v1")
            assert KEY not in str(denied.value)
            assert server.asked[0][1]["Authorization"] == f"Bearer {KEY}"
            return [path for path, *_ in elsewhere.asked]

    assert asyncio.run(ask()) == []


def test_a_proxy_of_the_environment_is_used_but_not_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hosts() -> tuple[list[str], list[str]]:
        async with running(Server()) as proxy, running(Server()) as server:
            for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("http_proxy", proxy.url)
            await complete("http://models.test/v1")
            await complete(f"{server.url}/v1")
            return [path for path, *_ in proxy.asked], [path for path, *_ in server.asked]

    proxied, direct = asyncio.run(hosts())
    assert proxied == [f"models.test/v1/{PATH}"]
    assert len(direct) == 1


def test_the_key_is_in_no_text_of_the_client() -> None:
    async def text() -> str:
        client = EndpointClient(EndpointConfig(base_url="http://models.test/v1"), PATH, "tiny", KEY, {}, Budget([], {}))
        try:
            return f"{client!r} {client}"
        finally:
            await client.close()

    assert KEY not in asyncio.run(text())
