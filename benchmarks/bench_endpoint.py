"""The endpoint engine against a bare asyncio client at the same server, side by side.

    .venv/bin/python benchmarks/bench_endpoint.py [--delay-s 0.05] [--concurrency 32] [--prompts 2048] [--repeats 5]
    .venv/bin/python benchmarks/bench_endpoint.py --url http://127.0.0.1:8000/v1 --model small --prompts 128 --concurrency 16

A is the bare client: one aiohttp session, a semaphore, the same bodies, JSON read and the label's logprob looked up. B is the engine as
the worker uses it: two calls of `answer` at once, with what is asked rendered and what is said read into responses. Both in processes of
their own, each warmed up by one request for each place. A B A B …, the order turned every pair; the figure is the ratio B / A of
requests a second in each pair. Without --url the server is tests/api_server.py in a third process, which answers after a fixed delay; the
smaller the delay, the more the client's own cost shows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import arguments, figure, write

SERVER = Path(__file__).parents[1] / "tests" / "api_server.py"


def prompts_of(count: int, first: int = 0) -> list[Any]:
    """Prompts as a run has them: bundled items, each made another by its number, so that no cache serves them."""
    from wdct_dist.config.schema import Config, DataConfig, PromptConfig
    from wdct_dist.items.selection import select_items
    from wdct_dist.prompts.build import build_prompts
    from wdct_dist.prompts.types import Message

    config = Config(data=DataConfig(), prompt=PromptConfig(reply_tokens=1))
    bundled = list(build_prompts(select_items(config.data), config))
    chosen = []
    for number in range(first, first + count):
        prompt = bundled[number % len(bundled)]
        system = Message("system", f"This is question {number}.")
        chosen.append(replace(prompt, prompt_id=f"{prompt.prompt_id}-{number}", messages=(system, *prompt.messages)))
    return chosen


def engine(options: argparse.Namespace) -> float:
    """Requests a second of the engine."""
    from wdct_dist.checkpoints.sources import endpoint_checkpoint
    from wdct_dist.config.schema import EndpointConfig, PromptConfig, SamplingConfig
    from wdct_dist.engine.endpoint_engine import EndpointEngine

    settings = EndpointConfig(base_url=options.url, api_key_env=None, concurrency=options.concurrency)
    checkpoint = endpoint_checkpoint(options.model, options.model, None, options.url)
    asked = EndpointEngine(checkpoint, settings, PromptConfig(), SamplingConfig(), {})
    prompts = prompts_of(options.prompts, options.first)
    size = min(256, -(-options.prompts // 2))
    units = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    errors: list[str] = []
    take = iter(units)

    def work() -> None:
        for unit in take:
            errors.extend(response.error for response in asked.answer(unit, 0) if response.error is not None)

    asked.answer(prompts_of(options.concurrency, 10**9 + options.first), 0)
    threads = [threading.Thread(target=work) for _ in range(2)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    asked.close()
    assert not errors, errors[:3]
    return options.prompts / seconds


async def bare(options: argparse.Namespace) -> float:
    """Requests a second of a client that does nothing but ask."""
    import aiohttp

    slots = asyncio.Semaphore(options.concurrency)

    async def ask(session: aiohttp.ClientSession, body: bytes) -> float:
        async with slots, session.post(f"{options.url}/chat/completions", data=body) as response:
            assert response.status == 200, await response.text()
            top = (await response.json())["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return float(top[0]["logprob"])

    def bodies(count: int, first: int) -> list[bytes]:
        common = {"model": options.model, "temperature": 0, "logprobs": True, "top_logprobs": 20, "max_tokens": 1}
        return [
            json.dumps({**common, "messages": [{"role": one.role, "content": one.content} for one in prompt.messages]}).encode()
            for prompt in prompts_of(count, first)
        ]

    sent = bodies(options.prompts, options.first)
    connector = aiohttp.TCPConnector(limit=options.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:
        await asyncio.gather(*(ask(session, body) for body in bodies(options.concurrency, 10**9 + options.first)))
        began = time.perf_counter()
        found = await asyncio.gather(*(ask(session, body) for body in sent))
        seconds = time.perf_counter() - began
    assert len(found) == options.prompts
    return options.prompts / seconds


def measured(who: str, options: argparse.Namespace, number: int) -> float:
    """One measurement, in a process of its own. Its prompts are new to the server."""
    given = {"url": options.url, "model": options.model, "prompts": options.prompts, "concurrency": options.concurrency}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    command = [sys.executable, __file__, f"--who={who}", f"--first={number * options.prompts}", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--who", choices=("engine", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.who:
        print(engine(options) if options.who == "engine" else asyncio.run(bare(options)))
        return
    server = None
    with tempfile.TemporaryDirectory() as folder:
        if options.url is None:
            port_file = Path(folder) / "port"
            behaviour = json.dumps({"delay_s": options.delay_s})
            server = subprocess.Popen([sys.executable, str(SERVER), str(port_file), os.devnull, behaviour])
            while not port_file.exists() or not port_file.read_text():
                time.sleep(0.05)
            options.url = f"http://127.0.0.1:{json.loads(port_file.read_text())['port']}/v1"
        try:
            pairs = []
            for number in range(options.repeats):
                order = ("bare", "engine") if number % 2 == 0 else ("engine", "bare")
                found = {who: measured(who, options, 2 * number + place) for place, who in enumerate(order)}
                pairs.append({**found, "ratio": found["engine"] / found["bare"]})
                print(json.dumps({name: round(value, 3) for name, value in pairs[-1].items()}), flush=True)
        finally:
            if server is not None:
                server.terminate()
                server.wait()
    write(
        options,
        "endpoint" if server is not None else "endpoint-server",
        [figure("engine / bare, requests a second", [pair["ratio"] for pair in pairs])],
        pairs,
    )


if __name__ == "__main__":
    main()
