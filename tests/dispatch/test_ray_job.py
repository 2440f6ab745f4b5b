"""`ray job submit` on a real head node with its job server: followed, stopped, submitted again, its metrics read by HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.processes import command, descendants, free_port

ROOT = Path(__file__).parents[2]
CONFIG = """
run_dir: {run}
data: {{limit: 24}}
checkpoints: [alpha, beta]
engine: {{kind: scripted, scripted: {{delay_s: 1.0}}}}
report: {{html: false}}
dispatch: {{shard_size: 1}}
metrics: {{bootstrap_resamples: 10}}
"""
"""Each checkpoint takes two minutes: long enough to be followed and stopped at its first shards, however slow Ray's commands are."""
NUM_PROMPTS = 224
KEYS = ["checkpoint_id", "prompt_id", "trial"]
WDCT = f"{sys.executable} -m wdct_dist"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("aiohttp_cors") is None, reason="ray[default], which has the job server, is not installed (the extra `test` brings it)"
    ),
]


class Head:
    """A head node with dashboard, job server and metrics, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        names = ("port", "dashboard-port", "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port")
        ports = {name: free_port() for name in names}
        self.ray = str(Path(sys.executable).with_name("ray"))
        self.server = f"http://127.0.0.1:{ports['dashboard-port']}"
        self._agent_port = ports["dashboard-agent-listen-port"]
        self.metrics_url = f"http://127.0.0.1:{ports['metrics-export-port']}/metrics"
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_metrics_report_interval_ms": "1000",
        }
        command = [self.ray, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true", "--disable-usage-stats"]
        command += [f"--{name}={port}" for name, port in ports.items()]
        # a job joins the last cluster that was started with the same directory; a short name, since sockets lie below it
        self._session = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        command.append(f"--temp-dir={self._session.name}")
        self.log = folder / "head.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)

    def job(self, command: str, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        words = [self.ray, "job", command, "--address", self.server, *arguments]
        return subprocess.run(words, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)

    def submit(self, name: str, entrypoint: str, *options: str) -> subprocess.CompletedProcess[str]:
        environment = str(ROOT / "cluster" / "runtime_env.yaml")
        return self.job("submit", "--submission-id", name, "--runtime-env", environment, *options, "--", *entrypoint.split())

    def takes_jobs(self) -> bool:
        """Whether the job server is there, and the agent that begins jobs, for which it waits 10 s only. Else raises `OSError`."""
        socket.create_connection(("127.0.0.1", self._agent_port), timeout=60).close()
        return bool(self.get("/api/version"))

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def metrics(self) -> dict[str, float]:
        """Our metrics, by name and by the labels that we gave them; those of one name and labels added up."""
        found: dict[str, float] = {}
        with urllib.request.urlopen(self.metrics_url, timeout=60) as reply:
            for line in reply.read().decode().splitlines():
                if (sample := re.fullmatch(r"(ray_wdct_\w+)\{(.*)\} (\S+)", line)) is None:
                    continue
                labels = re.findall(r'\b(run|checkpoint|variant|event)="([^"]*)"', sample[2])
                name = ",".join([sample[1], *(f"{key}={value}" for key, value in sorted(labels))])
                found[name] = found.get(name, 0.0) + float(sample[3])
        return found

    def engines(self) -> list[int]:
        """Processes of engines in this cluster."""
        return [pid for pid in descendants(self._process.pid) if command(pid).startswith("ray::Worker")]

    def stop(self) -> None:
        # its own process only: `ray stop` would end every cluster on this machine
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(180)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._session.cleanup()


def wait_for(what: Callable[[], Any], timeout_s: float = 300) -> None:
    """Until it is so; what cannot be asked, since a server is not there yet or takes long, is not so yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError):
            if what():
                return
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    head = Head(tmp_path_factory.mktemp("head"))
    try:
        wait_for(head.takes_jobs)
        yield head
    finally:
        head.stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tonight.yaml"
    path.write_text(CONFIG.format(run=tmp_path / "tonight"))
    return path


def on_the_dashboard() -> set[str]:
    """Names of the metrics that cluster/grafana.json shows."""
    board = json.loads((ROOT / "cluster" / "grafana.json").read_text())
    return {name for panel in board["panels"] for target in panel["targets"] for name in re.findall(r"ray_wdct_\w+", target["expr"])}


def test_a_job_is_followed_stopped_and_submitted_again(head: Head, config: Path) -> None:
    run = config.parent / "tonight"
    # the shell outlives the signal to say how `wdct` ended; Ray keeps no exit code of a job that was stopped
    script = config.parent / "job.sh"
    script.write_text(f"trap '' TERM\n{WDCT} evaluate {config}\necho exit code $?\n")
    submitted = head.submit("first", f"sh {script}", "--no-wait")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    wait_for(lambda: len(list(run.glob("answers/*.arrow"))) >= 3)
    shown = on_the_dashboard() - {"ray_wdct_errors_total", "ray_wdct_cached_tokens_total"}  # Ray exports no counter that is still 0
    wait_for(lambda: shown <= {name.partition(",")[0] for name in head.metrics()})
    exported = {name: value for name, value in head.metrics().items() if name.startswith("ray_wdct_prompts_total")}
    assert set(exported) == {"ray_wdct_prompts_total,checkpoint=alpha,run=tonight,variant=direct"}
    assert 1 <= min(exported.values()) <= NUM_PROMPTS
    assert head.engines()
    stopped = head.job("stop", "first")
    assert "was stopped" in stopped.stdout + stopped.stderr
    assert head.get("/api/jobs/first")["status"] == "STOPPED"
    log = head.job("logs", "first").stdout
    assert f"0 of {NUM_PROMPTS} prompts (0 %)" in log
    assert "stopped by SIGTERM; what is done is safe, the same command goes on from here" in log
    assert "exit code 3" in log
    assert "\x1b" not in "".join(line for line in log.splitlines() if "prompts (" in line)
    wait_for(lambda: not head.engines())
    shards = {path: path.stat().st_mtime_ns for path in run.glob("answers/*.arrow")}

    again = head.submit("second", f"{WDCT} evaluate {config} engine.scripted.delay_s=0")
    assert again.returncode == 0, again.stdout + again.stderr
    assert head.get("/api/jobs/second")["status"] == "SUCCEEDED"
    assert f"{NUM_PROMPTS} of {NUM_PROMPTS} prompts done" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).select(KEYS).collect()
    assert answers.height == NUM_PROMPTS
    assert answers.is_unique().all()


def test_a_job_has_failed_where_the_exit_code_is_not_0(head: Head, config: Path) -> None:
    result = head.submit("third", f"{WDCT} evaluate {config} engine.scripted.delay_s=0 engine.scripted.fail_start=beta")
    assert result.returncode != 0
    told = head.get("/api/jobs/third")
    assert (told["status"], told["driver_exit_code"]) == ("FAILED", 3)
    assert "checkpoint beta failed" in told["message"]


FEED = """
import os, sys, time
import ray
from wdct_dist.dispatch.ray_metrics import RayMetrics

ray.init(logging_level="ERROR")
watch = RayMetrics("fed")
done = {"checkpoint": "alpha", "variant": "direct", "errors": 1, "prompt_tokens": 100, "cached_tokens": 60, "output_tokens": 8}
watch("pool", {"engines": 3})
watch("engine started", {"engine": 0})
watch("engine started", {"engine": 1})
watch("unit done", done | {"rows": 8, "seconds": 0.5})
watch("unit done", done | {"rows": 4, "seconds": 0.25})
watch("unit done", done | {"rows": 2, "seconds": 1.0, "variant": "cot", "errors": 0, "cached_tokens": 0})
while not os.path.exists(sys.argv[1]):
    watch("unit given", {})  # with every event the number of engines is set anew
    time.sleep(0.2)
"""


def test_what_a_run_does_is_exported_with_its_values_by_checkpoint_and_variant(head: Head, tmp_path: Path) -> None:
    script, end = tmp_path / "feed.py", tmp_path / "end"
    script.write_text(FEED)
    result = head.submit("fifth", f"{sys.executable} {script} {end}", "--no-wait")
    assert result.returncode == 0, result.stdout + result.stderr
    direct, cot = (f"checkpoint=alpha,run=fed,variant={variant}" for variant in ("direct", "cot"))
    expected = {
        "engines,run=fed": 3,
        "events_total,event=pool,run=fed": 1,
        "events_total,event=engine started,run=fed": 2,
        f"units_total,{direct}": 2,
        f"units_total,{cot}": 1,
        f"prompts_total,{direct}": 12,
        f"prompts_total,{cot}": 2,
        f"errors_total,{direct}": 2,
        f"prompt_tokens_total,{direct}": 200,
        f"prompt_tokens_total,{cot}": 100,
        f"cached_tokens_total,{direct}": 120,
        f"output_tokens_total,{direct}": 16,
        f"output_tokens_total,{cot}": 8,
        f"unit_seconds_total,{direct}": 0.75,
        f"unit_seconds_total,{cot}": 1.0,
    }

    assert len(on_the_dashboard()) >= 6
    assert on_the_dashboard() <= {f"ray_wdct_{name.partition(',')[0]}" for name in expected}

    found: dict[str, float] = {}

    def is_exported() -> bool:
        """Ray may read the values while they are set, and has the others the next time."""
        exported = {name.removeprefix("ray_wdct_"): value for name, value in head.metrics().items() if "run=fed" in name}
        exported.pop("events_total,event=unit given,run=fed", None)
        found.clear()
        found.update(exported)
        return found == expected

    try:
        with contextlib.suppress(AssertionError):
            wait_for(is_exported)
        assert found == expected
    finally:
        end.touch()
