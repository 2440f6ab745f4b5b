"""Tasks in a real Ray of two cores: what builds on what, and what is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from wdct_dist.config.schema import DispatchConfig
from wdct_dist.dispatch import ray_environment
from wdct_dist.dispatch.task_size import size_task
from wdct_dist.errors import DataError

ray_environment.prepare()

from wdct_dist.dispatch.ray_task import Task, run_tasks

folder = Path(sys.argv[1])


def work(given, size):
    folder, name = Path(given["folder"]), given["name"]
    attempt = len(list(folder.glob(f"{name}.begun.*")))
    (folder / f"{name}.begun.{attempt}").touch()
    if attempt < given.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + 300
    while given.get("waits_for") and not list(folder.glob(given["waits_for"])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if given.get("fails"):
        raise DataError("there is nothing in it")
    return f"{name} after {given['before']}"


def task(name, after=None, **told):
    return Task(name, after, lambda before: {"folder": str(folder), "name": name, "before": before, **told})


tasks = [
    # each waits for the other: they are only done where both run at once
    task("a1", waits_for="b1.begun.1"),
    task("b1", waits_for="a1.begun.0", deaths=1),
    task("a2", after="a1"),
    task("b2", after="b1"),
    task("c1", fails=True),
    task("c2", after="c1"),
    task("d1", deaths=9),
]
said = []
outcome = run_tasks(
    tasks,
    work,
    partial(size_task, 0.5, None),
    DispatchConfig(),
    max_attempts=2,
    take=lambda result: not result.startswith("b1"),
    say=lambda event, **facts: said.append([event, facts["task"]]),
    watch=lambda: None,
)
stopped = run_tasks(
    [task("e1", waits_for="nothing"), task("e2", after="e1")],
    work,
    partial(size_task, 0.5, None),
    DispatchConfig(),
    max_attempts=2,
    take=bool,
    say=lambda event, **facts: None,
    watch=lambda: os.kill(os.getpid(), signal.SIGTERM) if list(folder.glob("e1.begun.*")) else None,
)
assert (stopped.interrupted, stopped.results, stopped.failed) == ("SIGTERM", {}, {})
failed = {name: type(error).__name__ for name, error in outcome.failed.items()}
print(json.dumps({"results": outcome.results, "failed": failed, "lost": sorted(name for event, name in said if event == "task lost")}))
"""


@pytest.mark.slow
def test_tasks_are_done_in_their_order_side_by_side_and_again_where_their_process_is_killed(tmp_path: Path) -> None:
    # in a process of its own, since Ray reads its environment when it is imported
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    # nothing may build on b1, nor on what failed
    assert outcome["results"] == {"a1": "a1 after None", "b1": "b1 after None", "a2": "a2 after a1 after None"}
    assert outcome["failed"] == {"c1": "DataError", "d1": "WorkerCrashedError"}
    assert outcome["lost"] == ["b1", "d1"]
    assert len(list(tmp_path.glob("d1.begun.*"))) == 2
    assert not [*tmp_path.glob("b2.*"), *tmp_path.glob("c2.*")]
