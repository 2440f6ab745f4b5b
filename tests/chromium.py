"""A real headless Chromium, driven over its DevTools protocol: opens a page from disk, asks it, and hears what its console says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """Path of the browser; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


class Browser:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """Errors and warnings of the console, exceptions, and requests for anything but the page itself."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=180)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._hear(message.get("method", ""), message.get("params", {}))

    def _hear(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(said["entry"]))
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"asks for {said['request']['url']}")

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    async def open(self, path: Path, width: int = 1400, height: int = 1000, *, dark: bool = False) -> float:
        """Opens a file and waits until its charts are drawn; returns the seconds that took, as the page's clock tells."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        # the page before may still be there when the answer comes
        await self.ask("delete document.documentElement.dataset.drawn")
        await self.call("Page.navigate", url=path.resolve().as_uri())
        for _ in range(3600):
            with contextlib.suppress(RuntimeError):  # the page that was asked gave way to the new one
                drawn = await self.ask("document.documentElement?.dataset.drawn === 'yes' ? performance.now() : null")
                if drawn is not None:
                    return float(drawn) / 1000
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{path} was not drawn in 3 minutes; its console said: {self.complaints}")

    async def becomes(self, expression: str, wanted: Any) -> Any:
        """The value of a JavaScript expression once it is the one that is wanted; after a minute, the one that it is."""
        for _ in range(1200):
            if (value := await self.ask(expression)) == wanted:
                break
            await asyncio.sleep(0.05)
        return value

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        """Writes what the page looks like as a PNG file."""
        result = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A fresh browser with a profile of its own, ended with the block."""
    program = find_chromium()
    assert program is not None, "no Chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            address = await asyncio.wait_for(_address(process), 180)
            async with aiohttp.ClientSession() as session:
                while not (tabs := await _tabs(session, address)):  # it may listen before it has opened its page
                    await asyncio.sleep(0.05)
                [tab] = tabs
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Browser(socket)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


async def _tabs(session: aiohttp.ClientSession, address: str) -> list[dict[str, Any]]:
    async with session.get(f"http://{address}/json/list") as response:
        return [one for one in await response.json() if one["type"] == "page"]


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if (found := re.search(rb"DevTools listening on ws://([^/]+)/", line)) is not None:
            return found[1].decode()
    raise RuntimeError("the browser ended before it listened")
