"""Actors that are made before there is a run for them, on a real local Ray, with the scripted engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LIFE = """
import json
import os
import signal
import sys
import time
from pathlib import Path
from wdct_dist.config.load import load_config
from wdct_dist.dispatch.pool import open_pool
from wdct_dist.pipeline import evaluate

folder = Path(sys.argv[1])
path = folder / "c.yaml"
path.write_text("checkpoints: [alpha, beta]\\ndata: {limit: 12}\\nengine: {kind: scripted}\\nmetrics: {bootstrap_resamples: 10}\\n")

def configuration(name, *overrides):
    return load_config(str(path), [f"run_dir={folder / name}", *overrides])

import ray

ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

def process(handle):
    return ray.get(handle.__ray_call__.remote(lambda worker: os.getpid()))

def made(pool):
    # the second wish is taken up when the first, and those before it, are fulfilled
    for _ in range(2):
        pool._ahead.want(0)
    while not pool._ahead._wanted.empty():
        time.sleep(0.01)
    return [process(actor.handle) for actor in pool._ahead._actors]

def run(name, *overrides, wanted, meanwhile=lambda processes: None):
    config = configuration(name, "dispatch.num_engines=2", "dispatch.engine_cpus=1", *overrides)
    pool = open_pool(config)
    counts = []
    for num_units in wanted:
        pool.begin(num_units)
        processes = made(pool)
        counts.append(len(processes))
    handles = [actor.handle for actor in pool._ahead._actors]
    meanwhile(processes)
    outcome = evaluate(config, pool=pool)
    used = [process(engine.actor) for engine in pool._engines.values()]
    gone = 0
    for handle in handles:
        try:
            ray.get(handle.__ray_ready__.remote(), timeout=120)
        except ray.exceptions.RayActorError:
            gone += 1
    pool.close()
    events = [json.loads(line)["event"] for line in (folder / name / "events.jsonl").read_text().splitlines()]
    said = [event for event in events if event in ("start failed", "engine lost", "checkpoint failed")]
    print(json.dumps({"made": counts, "used": len(set(used) & set(processes)), "gone": gone, "code": outcome.exit_code, "said": said}))

# engines that take their time: a run lasts until each has begun, and until a dead one is noticed
slow = ["dispatch.shard_size=8", "engine.scripted.delay_s=0.1"]
run("two", *slow, wanted=[1, 2, 9])
run("few", "dispatch.shard_size=1000", "checkpoints=[alpha]", wanted=[5])
run("killed", *slow, wanted=[2], meanwhile=lambda processes: os.kill(processes[0], signal.SIGKILL))
"""


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """By name of the run: actors made ahead after each wish, how many of them were used and gone at its end, its exit code, losses."""
    folder = tmp_path_factory.mktemp("ahead")
    # in a process of its own, since Ray reads its environment when it is imported
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", LIFE, str(folder)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]  # among what Ray says of a killed process
    return dict(zip(("two", "few", "killed"), said, strict=True))


def test_a_pool_makes_its_actors_ahead_one_a_unit_that_is_sure_and_then_uses_them(lives: dict[str, dict[str, object]]) -> None:
    assert lives["two"]["made"] == [1, 2, 2]
    assert (lives["two"]["used"], lives["two"]["gone"], lives["two"]["code"]) == (2, 0, 0)


def test_actors_that_turn_out_to_be_too_many_are_ended(lives: dict[str, dict[str, object]]) -> None:
    assert lives["few"]["made"] == [2]
    assert (lives["few"]["used"], lives["few"]["gone"], lives["few"]["code"]) == (1, 1, 0)


def test_an_actor_that_was_killed_before_it_had_a_checkpoint_is_replaced(lives: dict[str, dict[str, object]]) -> None:
    assert (lives["killed"]["used"], lives["killed"]["gone"], lives["killed"]["code"]) == (1, 1, 0)
    assert lives["killed"]["said"] == ["start failed"]
