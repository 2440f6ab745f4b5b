"""Watching a training run's directory, with the command line in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 0}}
"""


class Watching:
    """`wdct evaluate` on a directory that is written to meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.run, self.watched, self._config = folder / "run", folder / "run1", folder / "c.yaml"
        self._config.write_text(CONFIG.format(run=self.run, watched=self.watched))
        self._out = (folder / "out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wdct_dist", "evaluate", str(self._config)], stdout=self._out, stderr=subprocess.STDOUT
        )

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

    def output(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()


def until(holds: Callable[[], bool], watching: Watching) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, watching.output()
        assert watching.process.poll() is None, watching.output()
        time.sleep(0.1)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    started = Watching(tmp_path)
    yield started
    started.close()


def test_checkpoints_are_evaluated_as_they_appear_and_the_report_grows_until_the_marker(watching: Watching) -> None:
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    watching.save("checkpoint-2")
    watching.wait_for("run1/checkpoint-1", "run1/checkpoint-2")
    watching.save("checkpoint-10")
    (watching.watched / "done").touch()
    assert watching.end() == 0, watching.output()
    assert watching.scored() == ["run1/checkpoint-1", "run1/checkpoint-10", "run1/checkpoint-2"]
    events = [json.loads(line) for line in (watching.run / "events.jsonl").read_text().splitlines()]
    started = [event["checkpoint"] for event in events if event["event"] in ("engine started", "engine swapped")]
    assert started == ["run1/checkpoint-1", "run1/checkpoint-2", "run1/checkpoint-10"], "each once, in the order they came"
    assert watching.output().count("Consistency") >= 3, "a report after each"


def test_a_signal_while_it_waits_ends_it_with_everything_done(watching: Watching) -> None:
    watching.save("checkpoint-1")
    watching.wait_for("run1/checkpoint-1")
    time.sleep(1)
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0, watching.output()


def test_a_directory_in_which_nothing_appears_is_said_at_the_end(watching: Watching) -> None:
    watching.watched.mkdir()
    (watching.watched / "done").touch()
    assert watching.end() == 2
    assert f"no complete checkpoint appeared in {watching.watched}" in watching.output()
