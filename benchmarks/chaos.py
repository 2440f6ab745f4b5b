"""A run on three nodes in which something is killed every few seconds; its table has to be that of an undisturbed run.

    .venv/bin/python benchmarks/chaos.py [--kills 30] [--every-s 4] [--seed 1]

A real Ray cluster on this machine: a head without cores, and three nodes with a core and a scripted engine each. By chance, one of these:
  engine   its process is killed
  actor    its process is stopped, so that it hangs (dispatch.unit_timeout_s ends it)
  node     its raylet is killed; another node joins a few seconds later
  driver   `wdct evaluate` is killed; the same command goes on
A kill counts once units are done after it. After the last one the run is left alone until it is complete. SIGKILL and SIGSTOP throughout:
nothing is told that its end comes. Random kills are nobody's fault, so a unit that dies alone is tried five times before it is split.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import arguments, figure, write

MARK = "WDCT_CHAOS"
KINDS = ("engine", "actor", "node", "driver")
KEYS = ["checkpoint_id", "prompt_id", "trial"]
CONFIG = """
run_dir: {run}
checkpoints: [first, second]
trials: 2
engine: {{kind: scripted, scripted: {{delay_s: {delay_s}}}}}
dispatch:
  {{executor: {executor}, num_engines: {num_engines}, engine_cpus: 1, shard_size: 9, unit_timeout_s: 8, max_attempts: 5, max_restarts: 50}}
metrics: {{bootstrap_resamples: 10}}
"""
"""200 units: 448 prompts in 50 shards, two checkpoints, two trials."""
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--every-s", type=float, default=4.0)
    parser.add_argument("--delay-s", type=float, default=0.3, help="time that a prompt takes")
    parser.add_argument("--seed", type=int, default=1)
    options = arguments(parser)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = Run(Path(scratch) / "undisturbed", delay_s=0.0, executor="local", num_engines=1)
        assert undisturbed.finish() == 0, undisturbed.log.read_text()
        found = disturb(Path(scratch), undisturbed, options)
    print(json.dumps(found))
    figures = [
        figure("kills survived", found["kills_survived"]),
        figure("seconds", found["seconds"], "s"),
        figure("longest from a kill to the next unit done", found["longest_without_a_unit_s"], "s"),
        figure("the undisturbed run's table, row for row", float(found["table_is_the_undisturbed_one"])),
        figure("engine processes left", len(found["engines_left_behind"])),
    ]
    write(options, "chaos", figures, found)


class Run:
    """`wdct evaluate` with one run directory, as often as it takes."""

    def __init__(self, folder: Path, *, delay_s: float, executor: str, num_engines: int) -> None:
        folder.mkdir()
        self.run, self.log, self._config = folder / "run", folder / "log", folder / "c.yaml"
        self._config.write_text(CONFIG.format(run=self.run, delay_s=delay_s, executor=executor, num_engines=num_engines))
        self.num_drivers = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self.num_drivers += 1
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wdct_dist", "evaluate", str(self._config)], stdout=stream, stderr=stream
            )
        return self.process

    def finish(self) -> int:
        process = self.process if self.process is not None and self.process.poll() is None else self.start()
        return process.wait(600)

    def events(self, name: str) -> list[dict[str, Any]]:
        file = self.run / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(read_line, lines) if event.get("event") == name]

    def table(self) -> Any:
        import polars as pl

        return pl.scan_ipc(str(self.run / "answers" / "*.arrow")).collect().sort(KEYS)


def read_line(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}  # cut short by a kill
    return event


class Nodes:
    """A cluster of a head and three nodes."""

    def __init__(self) -> None:
        from wdct_dist.dispatch import ray_environment

        ray_environment.prepare()
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(**NODE) for _ in range(3)]
        self.address: str = self._cluster.address

    def kill(self, generator: random.Random) -> None:
        node = self._nodes.pop(generator.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)

    def join(self) -> None:
        self._nodes.append(self._cluster.add_node(**NODE))

    def close(self) -> None:
        self._cluster.shutdown()


def engines(mark: str) -> list[int]:
    """Processes of engines that this program's cluster has, also where their node is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_engine = (entry / "cmdline").read_bytes().startswith(b"ray::Worker") and mark.encode() in (
                    entry / "environ"
                ).read_bytes()
            except OSError:
                continue
            if is_engine:
                found.append(int(entry.name))
    return found


def until(holds: Callable[[], object], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def disturb(folder: Path, undisturbed: Run, options: argparse.Namespace) -> dict[str, Any]:
    generator = random.Random(options.seed)
    mark = os.environ[MARK] = uuid.uuid4().hex
    began = time.monotonic()
    nodes = Nodes()
    os.environ["RAY_ADDRESS"] = nodes.address
    run = Run(folder / "disturbed", delay_s=options.delay_s, executor="ray", num_engines=3)
    process = run.start()
    kills: collections.Counter[str] = collections.Counter()
    longest_s = 0.0
    try:
        while kills.total() < options.kills:
            time.sleep(generator.uniform(0.5, 1.5) * options.every_s)
            assert process.poll() is None, f"over after {kills.total()} kills: {run.log.read_text()[-3000:]}"
            living = engines(mark)
            kind = generator.choice(KINDS if living else ("node", "driver"))
            print(f"{time.monotonic() - began:6.1f} s  {kind}", file=sys.stderr, flush=True)
            if kind == "driver":
                process.kill()
                process.wait()
                process = run.start()
            elif kind == "node":
                nodes.kill(generator)
                time.sleep(3)
                nodes.join()
            else:
                os.kill(generator.choice(living), signal.SIGKILL if kind == "engine" else signal.SIGSTOP)
            killed_at, done = time.monotonic(), len(run.events("unit done"))
            went_on = until(lambda done=done: len(run.events("unit done")) > done, 120)  # type: ignore[misc]
            assert went_on, f"nothing goes on after {kind}: {run.log.read_text()[-3000:]}"
            longest_s = max(longest_s, time.monotonic() - killed_at)
            kills[kind] += 1
        exit_codes = [run.finish()]
        while exit_codes[-1] == 3 and len(exit_codes) < 5:
            exit_codes.append(run.finish())
        seconds = time.monotonic() - began
        gone = until(lambda: not engines(mark), 60)
    finally:
        if process.poll() is None:
            process.kill()
        nodes.close()
    table, expected = run.table(), undisturbed.table()
    return {
        "seed": options.seed,
        "units_planned": undisturbed.events("plan")[0]["units"],
        "kills": dict(kills),
        "kills_survived": kills.total(),
        "seconds": round(seconds, 1),
        "longest_without_a_unit_s": round(longest_s, 1),
        "drivers": run.num_drivers,
        "exit_codes": exit_codes,
        "engines_lost": len(run.events("engine lost")),
        "places_that_waited": len(run.events("place waits")),
        "engines_started": len(run.events("engine started")),
        "rows": table.height,
        "rows_with_error": int(table["error"].is_not_null().sum()),
        "table_is_the_undisturbed_one": table.equals(expected),
        "engines_left_behind": [] if gone else engines(mark),
    }


if __name__ == "__main__":
    main()
