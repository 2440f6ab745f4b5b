"""Watching a training run's directory, with the command line in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

CONFIG = """
run_dir: {run}
data: {{limit: 4}}
checkpoints: [{{watch: {watched}, settle_s: 0.5}}]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{executor: {executor}}}
metrics: {{bootstrap_resamples: 0}}
"""


class Watching:
    """`wdct evaluate` on a directory that is written to meanwhile."""

    def __init__(self, folder: Path, executor: str, *overrides: str) -> None:
        self.run, self.watched, self._config = folder / "run", folder / "run1", folder / "c.yaml"
        self._config.write_text(CONFIG.format(run=self.run, watched=self.watched, executor=executor))
        self._out = (folder / "out").open("w+")
        command = [sys.executable, "-m", "wdct_dist", "evaluate", str(self._config), *overrides]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # a group of its own, as a terminal gives it: Ctrl-C goes to all of it
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.STDOUT, env=environment, process_group=0)

    def save(self, name: str) -> None:
        """As a trainer saves: directory, then settings, then weights."""
        directory = self.watched / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
        save_file({"weight": np.zeros(4, np.float32)}, directory / "model.safetensors")

    def scored(self) -> list[str]:
        file = self.run / "scores" / "summary.arrow"
        return pl.read_ipc(file)["checkpoint_id"].unique().sort().to_list() if file.exists() else []

    def wait_for(self, *names: str) -> None:
        until(lambda: self.scored() == list(names), self)

    def end(self) -> int:
        return self.process.wait(60)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        lines = (self.run / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] in kinds]

    def descendants(self) -> dict[int, str]:
        """Names of the processes that come from it, by process id."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        found: dict[int, str] = {}
        grown = {self.process.pid}
        while grown:
            grown = {one for one, parent in parents.items() if parent in grown}
            found |= {one: name for one in grown if (name := command_line(one))}
        return found

    def output(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()


def command_line(process: int) -> str:
    """Empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def assert_ended(processes: dict[int, str]) -> None:
    deadline = time.monotonic() + 10
    while left := {process: name for process, name in processes.items() if command_line(process) == name}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def until(holds: Callable[[], bool], watching: Watching) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, watching.output()
        assert watching.process.poll() is None, watching.output()
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Starts one, by an executor and with settings."""
    started: list[Watching] = []

    def begin(executor: str, *overrides: str) -> Watching:
        started.append(Watching(tmp_path, executor, *overrides))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.mark.parametrize("executor", ["ray", "local"])
def test_checkpoints_are_evaluated_as_they_appear_by_one_engine_and_the_report_grows_until_the_marker(
    executor: str, start: Callable[..., Watching]
) -> None:
    watching = start(executor)
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    watching.save("checkpoint-2")
    watching.wait_for("run1/checkpoint-1", "run1/checkpoint-2")
    processes = watching.descendants()
    assert sum("ray::Worker" in name for name in processes.values()) == (1 if executor == "ray" else 0)
    watching.save("checkpoint-10")
    (watching.watched / "done").touch()
    assert watching.end() == 0, watching.output()
    assert watching.scored() == ["run1/checkpoint-1", "run1/checkpoint-10", "run1/checkpoint-2"]
    loaded = [(event["event"], event["checkpoint"]) for event in watching.events("engine started", "engine swapped")]
    assert loaded == [
        ("engine started", "run1/checkpoint-1"),
        ("engine swapped", "run1/checkpoint-2"),
        ("engine swapped", "run1/checkpoint-10"),
    ], "each once, in the order they came"
    assert len(watching.events("engine starting")) == (1 if executor == "ray" else 0)
    assert len(watching.events("plan")) == 3
    assert watching.output().count("Consistency") >= 3, "a report after each"
    assert_ended(processes)


def test_with_reuse_restart_engines_end_with_each_round(start: Callable[..., Watching]) -> None:
    watching = start("local", "dispatch.reuse=restart")
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    watching.save("checkpoint-2")
    (watching.watched / "done").touch()
    assert watching.end() == 0, watching.output()
    loaded = [(event["event"], event["checkpoint"]) for event in watching.events("engine started", "engine swapped")]
    assert loaded == [("engine started", "run1/checkpoint-1"), ("engine started", "run1/checkpoint-2")]


def test_an_engine_that_died_while_it_waited_is_replaced(start: Callable[..., Watching]) -> None:
    watching = start("ray")
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    [engine] = [process for process, name in watching.descendants().items() if "ray::Worker" in name]
    os.kill(engine, signal.SIGKILL)
    watching.save("checkpoint-2")
    (watching.watched / "done").touch()
    assert watching.end() == 0, watching.output()
    assert watching.scored() == ["run1/checkpoint-1", "run1/checkpoint-2"]
    assert len(watching.events("engine started")) == 2


@pytest.mark.parametrize(
    ("executor", "number", "to_group"),
    [("local", signal.SIGINT, False), ("ray", signal.SIGTERM, False), ("ray", signal.SIGINT, True)],
    ids=["local", "SIGTERM", "Ctrl-C"],
)
def test_a_signal_while_it_waits_ends_it_and_its_engines_with_everything_done(
    executor: str, number: signal.Signals, to_group: bool, start: Callable[..., Watching]
) -> None:
    watching = start(executor)
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    time.sleep(1)
    processes = watching.descendants()
    assert sum("ray::Worker" in name for name in processes.values()) == (1 if executor == "ray" else 0)
    if to_group:
        os.killpg(watching.process.pid, number)
    else:
        watching.process.send_signal(number)
    assert watching.end() == 0, watching.output()
    assert_ended(processes)


def test_a_directory_in_which_nothing_appears_is_said_at_the_end(start: Callable[..., Watching]) -> None:
    watching = start("local")
    watching.watched.mkdir()
    (watching.watched / "done").touch()
    assert watching.end() == 2
    assert f"no complete checkpoint appeared in {watching.watched}" in watching.output()
