"""The head node of a joined cluster is killed in the middle of a run."""

from __future__ import annotations

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

from tests.dispatch.test_ray_driver import NUM_PROMPTS, answers, events
from tests.processes import free_port

CONFIG = """
run_dir: {run}
data: {{limit: 12}}
checkpoints: [demo]
engine: {{kind: scripted, scripted: {{delay_s: 0.5}}}}
dispatch: {{shard_size: 4}}
metrics: {{bootstrap_resamples: 10}}
report: {{html: false}}
"""


class Head:
    """A head node with all its processes, on one port for all its lives."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "head.log"
        self._port, self._client_port = free_port(), free_port()
        self.environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{self._port}"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        ports = [f"--port={self._port}", f"--ray-client-server-port={self._client_port}"]
        command = [ray, "start", "--head", "--block", *ports, "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        wait_for(lambda: "Ray runtime started" in self._log.read_text())

    def kill(self) -> None:
        """As a machine that loses its power: no process gets to say goodbye."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(180)
            self._process = None


def wait_for(what: Callable[[], Any], timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    one = Head(tmp_path)
    try:
        one.start()
        yield one
    finally:
        one.kill()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(run=tmp_path / "run"))
    return path


def test_a_run_waits_for_its_head_and_goes_on_when_it_is_back(head: Head, config: Path) -> None:
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config)]
    with subprocess.Popen(command, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: list((config.parent / "run" / "answers").glob("*.arrow")))
        head.kill()
        wait_for(lambda: events(config, "head lost"))
        head.start()
        _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert "head lost" in said
    rows = answers(config)
    assert rows.height == rows["prompt_id"].n_unique() == NUM_PROMPTS
    assert rows["error"].null_count() == NUM_PROMPTS
    assert len(events(config, "head back")) == 1


def test_a_head_that_does_not_come_back_ends_the_run_which_says_so(head: Head, config: Path) -> None:
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config), "dispatch.head_wait_s=1"]
    with subprocess.Popen(command, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: list((config.parent / "run" / "answers").glob("*.arrow")))
        head.kill()
        _, said = driver.communicate(timeout=600)
    assert driver.returncode == 3, said
    assert "is gone, and was not back after dispatch.head_wait_s = 1" in " ".join(said.split())
    assert "Traceback" not in said
    kept = pl.scan_ipc(str(config.parent / "run" / "answers" / "*.arrow")).collect()
    assert 0 < kept.height < NUM_PROMPTS


@pytest.mark.long
def test_a_head_that_is_lost_while_a_watched_directory_rests_is_joined_again(head: Head, tmp_path: Path) -> None:
    watched, config = tmp_path / "run1", tmp_path / "c.yaml"
    config.write_text(CONFIG.format(run=tmp_path / "run").replace("[demo]", f"[{{watch: {watched}, settle_s: 0.5}}]"))

    def save(name: str) -> None:
        directory = watched / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
        save_file({"weight": np.zeros(4, np.float32)}, directory / "model.safetensors")

    save("checkpoint-1")
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config)]
    with subprocess.Popen(command, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: (tmp_path / "run" / "scores" / "summary.arrow").exists())
        time.sleep(1)
        head.kill()
        time.sleep(75)  # Ray ends a process after a minute without a head
        head.start()
        save("checkpoint-2")
        (watched / "done").touch()
        _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert len(events(config, "head back")) == 1
    assert [event["checkpoint"] for event in events(config, "engine started")] == ["run1/checkpoint-1", "run1/checkpoint-2"]
