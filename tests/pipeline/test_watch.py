"""Watching a training run's directory, with the command line in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from tests.processes import command, descendants
from wdct_dist.config.load import load_config
from wdct_dist.pipeline import rounds
from wdct_dist.tables.events import read_events
from wdct_dist.tables.storage import Store

CONFIG = """
run_dir: {run}
data: {{limit: 4}}
checkpoints: [{{watch: {watched}, settle_s: {settle_s}}}]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{executor: {executor}}}
metrics: {{bootstrap_resamples: 0}}
"""


class Watched:
    """A directory that training writes to, and the run that evaluates what appears there."""

    def __init__(self, folder: Path) -> None:
        self.run, self.watched, self.config = folder / "run", folder / "run1", folder / "c.yaml"

    def write_config(self, executor: str, settle_s: float = 0.5) -> None:
        self.config.write_text(CONFIG.format(run=self.run, watched=self.watched, executor=executor, settle_s=settle_s))

    def save(self, name: str) -> None:
        """As a trainer saves: directory, then settings, then weights."""
        directory = self.watched / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
        save_file({"weight": np.zeros(4, np.float32)}, directory / "model.safetensors")

    def scored(self) -> list[str]:
        file = self.run / "scores" / "summary.arrow"
        if not file.exists():
            return []
        # opened once: Polars opens a file by its name several times, and it may be replaced between two of them
        return pl.read_ipc(file.read_bytes())["checkpoint_id"].unique().sort().to_list()

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in read_events(Store(str(self.run))) if event["event"] in kinds]

    def loads(self) -> list[str]:
        """How checkpoints came into engines, in order."""
        found = self.events("engine started", "engine swapped")
        return [f"{event['event'].removeprefix('engine ')} {event['checkpoint']}" for event in found]


class Watching(Watched):
    """`wdct evaluate` on the directory, in a process of its own."""

    def __init__(self, folder: Path, executor: str) -> None:
        super().__init__(folder)
        self.write_config(executor)
        self._out = (folder / "out").open("w+")
        command = [sys.executable, "-m", "wdct_dist", "evaluate", str(self.config)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # a group of its own, as a terminal gives it: Ctrl-C goes to all of it
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.STDOUT, env=environment, process_group=0)

    def wait_for(self, *names: str) -> None:
        until(lambda: self.scored() == list(names), self)

    def end(self) -> int:
        return self.process.wait(240)

    def output(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()

    def descendants(self) -> dict[int, str]:
        """Names of the processes that come from it, by process id."""
        return {one: name for one in descendants(self.process.pid) if (name := command(one))}


def assert_ended(processes: dict[int, str]) -> None:
    deadline = time.monotonic() + 120
    while left := {process: name for process, name in processes.items() if command(process) == name}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def until(holds: Callable[[], bool], watching: Watching) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, watching.output()
        assert watching.process.poll() is None, watching.output()
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Starts one, by an executor."""
    started: list[Watching] = []

    def begin(executor: str) -> Watching:
        started.append(Watching(tmp_path, executor))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def test_checkpoints_are_evaluated_as_they_appear_by_one_engine_and_the_report_grows_until_the_marker(
    start: Callable[..., Watching],
) -> None:
    watching = start("ray")
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    watching.save("checkpoint-2")
    watching.wait_for("run1/checkpoint-1", "run1/checkpoint-2")
    processes = watching.descendants()
    assert sum("ray::Worker" in name for name in processes.values()) == 1
    watching.save("checkpoint-10")
    (watching.watched / "done").touch()
    assert watching.end() == 0, watching.output()
    assert watching.scored() == ["run1/checkpoint-1", "run1/checkpoint-10", "run1/checkpoint-2"]
    assert watching.loads() == ["started run1/checkpoint-1", "swapped run1/checkpoint-2", "swapped run1/checkpoint-10"], "as they came"
    # a place that waits for its process begins a second time
    starts = {(event["engine"], event["checkpoint"]) for event in watching.events("engine starting")}
    assert starts == {(0, "run1/checkpoint-1")}
    assert len(watching.events("plan")) == 3
    assert watching.output().count("Consistency") >= 3, "a report after each"
    assert_ended(processes)


def test_an_engine_that_died_while_it_waited_is_replaced_and_the_new_one_ends_with_ctrl_c(start: Callable[..., Watching]) -> None:
    watching = start("ray")
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    [engine] = [process for process, name in watching.descendants().items() if "ray::Worker" in name]
    os.kill(engine, signal.SIGKILL)
    watching.save("checkpoint-2")
    watching.wait_for("run1/checkpoint-1", "run1/checkpoint-2")
    assert watching.loads() == ["started run1/checkpoint-1", "started run1/checkpoint-2"]
    time.sleep(1)
    processes = watching.descendants()
    assert sum("ray::Worker" in name for name in processes.values()) == 1
    os.killpg(watching.process.pid, signal.SIGINT)  # to the engines too
    assert watching.end() == 0, watching.output()
    assert_ended(processes)


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.long)])
def test_sigterm_while_it_waits_ends_it_and_its_engines_with_everything_done(executor: str, start: Callable[..., Watching]) -> None:
    watching = start(executor)
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    time.sleep(1)
    processes = watching.descendants()
    watching.process.send_signal(signal.SIGTERM)
    assert watching.end() == 0, watching.output()
    assert_ended(processes)


@pytest.mark.parametrize(("reuse", "second"), [("swap", "swapped"), ("restart", "started")])
def test_in_this_process_an_engine_lives_on_where_checkpoints_are_swapped(reuse: str, second: str, tmp_path: Path) -> None:
    watching = Watched(tmp_path)
    watching.write_config("local", settle_s=0)
    watching.save("checkpoint-1")
    outcomes = rounds(load_config(watching.config, [f"dispatch.reuse={reuse}", "metrics.noise_repeats=1"]))
    assert next(outcomes).exit_code == 0
    watching.save("checkpoint-2")
    (watching.watched / "done").touch()
    assert [outcome.exit_code for outcome in outcomes] == [0]
    assert watching.loads() == ["started run1/checkpoint-1", f"{second} run1/checkpoint-2"]
    answers, repeats = (pl.scan_ipc(folder / "answers" / "*.arrow").collect() for folder in (watching.run, watching.run / "noise" / "1"))
    assert answers.height == repeats.height > 0, "each in the run that it was asked for"


def test_a_first_checkpoint_that_does_not_start_does_not_end_the_watching(tmp_path: Path) -> None:
    watching = Watched(tmp_path)
    watching.write_config("local", settle_s=0)
    watching.save("checkpoint-1")

    def train_on() -> None:
        while not watching.events("checkpoint failed"):
            time.sleep(0.05)
        watching.save("checkpoint-2")
        (watching.watched / "done").touch()

    training = threading.Thread(target=train_on, daemon=True)
    training.start()
    outcomes = list(rounds(load_config(watching.config, ["engine.scripted.fail_start=checkpoint-1"])))
    training.join()
    assert list(outcomes[-1].failed_checkpoints) == ["run1/checkpoint-1"]
    assert outcomes[-1].exit_code == 3
    assert watching.scored() == ["run1/checkpoint-2"]


def test_a_directory_in_which_nothing_appears_is_said_at_the_end(start: Callable[..., Watching]) -> None:
    watching = start("local")
    watching.watched.mkdir()
    (watching.watched / "done").touch()
    assert watching.end() == 2
    assert f"no complete checkpoint appeared in {watching.watched}" in watching.output()
