"""The pool against a real local Ray: joining, poison, stores that refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.processes import free_port
from wdct_dist.tables.shards import verify

CONFIG = """
run_dir: {run}
data: {{limit: 12}}
checkpoints: [demo]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{shard_size: 16}}
metrics: {{bootstrap_resamples: 10}}
"""

PARKS_AT_ONCE = """
from wdct_dist.cli.main import main
from wdct_dist.dispatch import ray_driver, ray_pool
ray_driver.PLACED_S = ray_driver.POLL_S = 0.0
ray_pool.Ahead.take = lambda self, size: []
collect = ray_driver.RayDriver._collect
def collect_late(driver):
    driver._look_for_hangs()
    collect(driver)
ray_driver.RayDriver._collect = collect_late
raise SystemExit(main())
"""
"""The program, where every place waits for its actor at first, as on a slow machine: also where the actor fails at once."""

NUM_PROMPTS = 54
"""Of the first 12 bundled items: as many as options, a side."""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running cluster of one node without tokens, that believes to have a GPU; the environment that joins it."""
    ray = str(Path(sys.executable).with_name("ray"))
    log = tmp_path_factory.mktemp("ray") / "head.log"
    address = f"127.0.0.1:{free_port()}"
    ports = [f"--port={address.partition(':')[2]}", f"--ray-client-server-port={free_port()}"]
    # --block: it ends with its process, while `ray stop` would end every Ray of this user on this machine
    command = [
        ray,
        "start",
        "--head",
        "--block",
        *ports,
        "--num-cpus=2",
        "--num-gpus=1",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=log.parent)
    try:
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield {**environment, "RAY_ADDRESS": address}
    finally:
        process.terminate()
        process.wait(180)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(run=tmp_path / "run"))
    return path


def evaluate(config: Path, head: dict[str, str], *overrides: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config), *overrides]
    return subprocess.run(command, env=head, capture_output=True, text=True, timeout=900, cwd=cwd)


def events(config: Path, name: str) -> list[dict[str, object]]:
    lines = (config.parent / "run" / "events.jsonl").read_text().splitlines(keepends=True)
    # the last one may be under way
    return [event for event in map(json.loads, (line for line in lines if line.endswith("\n"))) if event["event"] == name]


def answers(config: Path) -> pl.DataFrame:
    return pl.scan_ipc(str(config.parent / "run" / "answers" / "*.arrow")).collect()


def test_a_running_cluster_is_joined_and_left_running(config: Path, head: dict[str, str]) -> None:
    result = evaluate(config, head)
    assert result.returncode == 0, result.stderr
    assert answers(config).height == NUM_PROMPTS
    command = [str(Path(sys.executable).with_name("ray")), "status"]
    deadline = time.monotonic() + 300
    # the cluster's monitor writes its first status some seconds after the head has started: until then there is none to be read
    while "Active" not in (alive := subprocess.run(command, env=head, capture_output=True, text=True, timeout=300)).stdout:
        assert alive.returncode == 0, alive.stderr
        assert time.monotonic() < deadline, alive.stdout
        time.sleep(0.5)


def test_a_relative_run_dir_is_relative_to_the_driver_not_to_the_cluster(config: Path, head: dict[str, str]) -> None:
    done = evaluate(config, head, "run_dir=run", cwd=config.parent)
    assert done.returncode == 0, done.stderr
    assert len(answers(config)) == NUM_PROMPTS


def test_a_node_that_sees_another_run_directory_is_refused(config: Path, head: dict[str, str]) -> None:
    # this absolute path leads to the working directory of whichever process opens it: the driver's, or the engine's
    done = evaluate(config, head, "run_dir=/proc/self/cwd/run", cwd=config.parent)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("run_dir must be the same directory on every node") == 1
    assert "Traceback" not in done.stderr
    assert not list(config.parent.glob("run/answers/*"))
    assert not list(config.parent.glob("run/.tmp-*"))


@pytest.mark.parametrize(("program", "waits"), [(("-m", "wdct_dist"), 0), (("-c", PARKS_AT_ONCE), 1)])
def test_a_token_that_the_cluster_does_not_want_is_said_with_what_to_do(
    program: tuple[str, str], waits: int, config: Path, head: dict[str, str]
) -> None:
    environment = {name: value for name, value in head.items() if name != "RAY_AUTH_MODE"}
    environment["RAY_AUTH_TOKEN"] = "0123456789abcdef" * 4
    command = [sys.executable, *program, "evaluate", str(config), "dispatch.max_restarts=0"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 2, result.stderr
    assert len(events(config, "place waits")) >= waits, result.stderr
    assert "was started without token authentication, and this driver sends a token" in result.stderr
    assert "Set RAY_AUTH_MODE=disabled" in result.stderr
    assert "0123456789abcdef" not in result.stderr
    assert "Traceback" not in result.stderr


def test_without_an_address_a_ray_of_its_own_is_started_also_beside_a_running_cluster(config: Path, head: dict[str, str]) -> None:
    alone = {name: value for name, value in head.items() if name != "RAY_ADDRESS"}
    result = evaluate(config, alone)
    assert result.returncode == 0, result.stderr
    assert answers(config).height == NUM_PROMPTS


def test_all_engines_of_the_pool_are_started_at_once(config: Path, head: dict[str, str]) -> None:
    result = evaluate(config, head, "dispatch.num_engines=4", "dispatch.shard_size=4", "engine.scripted.delay_s=0.05")
    assert result.returncode == 0, result.stderr
    first_unit = events(config, "unit done")[0]["time"]
    # on a slow machine a place may wait for its process for a while, and begin a second time
    assert {event["engine"] for event in events(config, "engine starting") if str(event["time"]) <= str(first_unit)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dispatch.num_engines=4", "dispatch.engine_cpus=1"], ["dispatch.engine_cpus", "the cluster has 2"]),
        (
            ["engine.kind=vllm", "dispatch.tensor_parallel_size=2", "checkpoints=[{model}]"],
            ["dispatch.tensor_parallel_size", "the cluster has 1"],
        ),
        (["dispatch.ray_address=127.0.0.1:1"], ["dispatch.ray_address", "no cluster answers"]),
    ],
)
def test_a_pool_that_the_cluster_cannot_hold_is_bad_input(
    overrides: list[str], words: list[str], config: Path, head: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if any("{model}" in override for override in overrides):
        model = request.getfixturevalue("small_model")
        overrides = [override.replace("{model}", str(model)) for override in overrides]
    result = evaluate(config, head, *overrides)
    assert result.returncode == 2, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_prompt_that_kills_its_engine_stands_alone_in_the_end(config: Path, head: dict[str, str]) -> None:
    items = [json.loads(line) for line in (Path(__file__).parents[2] / "wdct_dist/items/data/bundled.jsonl").read_text().splitlines()]
    poison = json.dumps(items[5]["deed"]["question"])
    result = evaluate(config, head, f"engine.scripted.fail_on={poison}")
    assert result.returncode == 0, result.stderr
    table = answers(config)
    failed = table.filter(pl.col("error").is_not_null())
    assert table.height == NUM_PROMPTS
    assert failed.height == len(items[5]["deed"]["options"])
    assert failed["error"].str.contains("alone in the engine").all()
    assert len(events(config, "engine lost")) <= 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    # also where the process of an engine, which was killed, still has a file of it
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_the_reason_and_no_broken_file(small_disk: Path, config: Path, head: dict[str, str]) -> None:
    run = small_disk / "run"
    result = evaluate(config, head, f"run_dir={run}", "data.limit=96", "trials=20", "dispatch.shard_size=64")
    assert result.returncode == 1
    assert "no space left on the device" in result.stderr
    assert "Traceback" not in result.stderr
    # what an engine was writing when it was killed is left under a hidden name
    for shard in (run / "answers").glob("[!.]*"):
        verify(f"answers/{shard.name}", shard.read_bytes())
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    result = evaluate(config, head, f"run_dir={run}", "data.limit=96", "trials=20", "dispatch.shard_size=64")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in run.rglob(".tmp*")] == []
    assert pl.scan_ipc(str(run / "answers" / "*.arrow")).collect().height == 448 * 20


def test_an_engine_that_hangs_is_ended_and_the_prompt_that_hangs_it_stands_alone(config: Path, head: dict[str, str]) -> None:
    items = [json.loads(line) for line in (Path(__file__).parents[2] / "wdct_dist/items/data/bundled.jsonl").read_text().splitlines()]
    # of its two orders the one that shows this option first; the time-out is long for the others, which take milliseconds
    hanging = json.dumps(f"A. {items[5]['deed']['options'][0]}")
    overrides = [f"engine.scripted.hang_on={hanging}", "dispatch.unit_timeout_s=15", "dispatch.max_attempts=1"]
    overrides += ["data.limit=6", "dispatch.shard_size=1", "dispatch.units_in_flight=1"]
    result = evaluate(config, head, *overrides)
    assert result.returncode == 0, result.stderr
    failed = answers(config).filter(pl.col("error").is_not_null())
    assert failed.height == 1
    assert failed["error"].str.contains(r"no unit done in 15(\.0)? s").all()
    lost = events(config, "engine lost")
    assert len(lost) >= failed.height  # on a busy machine an engine may be slow enough to be taken for one that hangs
    assert all("dispatch.unit_timeout_s" in str(event["reason"]) for event in lost)
