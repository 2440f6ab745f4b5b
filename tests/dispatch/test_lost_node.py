"""A node goes and comes back while a run uses it: real nodes of a cluster on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

CONFIG = """
run_dir: {run}
checkpoints: [demo]
trials: 20
engine: {{kind: scripted, scripted: {{delay_s: 0.1}}}}
report: {{html: false}}
dispatch: {{shard_size: 4, num_engines: 2, engine_cpus: 1, max_restarts: 1}}
metrics: {{bootstrap_resamples: 0}}
"""

NODES = """
import sys
from wdct_dist.dispatch import ray_environment

ray_environment.prepare()
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20})
settings = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
node = cluster.add_node(**settings)
print("address", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "remove":
        cluster.remove_node(node)
    else:
        node = cluster.add_node(**settings)
cluster.shutdown()
"""


class Nodes:
    """A cluster of a head and a node with one core each."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._process.stdout is not None
        lines = (line for line in self._process.stdout if line.startswith("address"))
        self.address = next(lines).split()[1]

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)

    def close(self) -> None:
        self._process.communicate(timeout=300)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    started = Nodes(tmp_path / "nodes.log")
    yield started
    started.close()


def until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        assert process.poll() is None, "the run is over"
        time.sleep(0.1)


def test_a_lost_nodes_place_waits_while_the_others_go_on_and_works_again_when_the_node_is_back(tmp_path: Path, nodes: Nodes) -> None:
    run, config, log = tmp_path / "run", tmp_path / "c.yaml", tmp_path / "log"
    config.write_text(CONFIG.format(run=run))

    def events(name: str) -> list[dict[str, object]]:
        lines = (run / "events.jsonl").read_text().splitlines(keepends=True) if (run / "events.jsonl").exists() else []
        # the last one may be under way
        return [event for event in map(json.loads, (line for line in lines if line.endswith("\n"))) if event["event"] == name]

    def is_after(event: dict[str, object], other: dict[str, object]) -> bool:
        return str(event["time"]) > str(other["time"])

    with log.open("wb") as stream:
        command = [sys.executable, "-m", "wdct_dist", "evaluate", str(config)]
        process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": nodes.address}, stdout=stream, stderr=stream)
    until(lambda: len({event["engine"] for event in events("unit done")}) == 2, process)
    # on a slow machine a place may have waited for its process at first
    waited = len(events("place waits"))
    nodes.tell("remove")
    until(lambda: len(events("place waits")) > waited, process)
    [waits] = events("place waits")[waited:]
    until(lambda: any(is_after(event, waits) for event in events("unit done")), process)  # by others, while the place waits
    nodes.tell("add")
    until(lambda: any(is_after(event, waits) for event in events("engine started")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 3, log.read_text()
    assert [event["engine"] for event in events("place has room") if is_after(event, waits)] == [waits["engine"]]
    back = events("engine started")[-1]
    assert back["engine"] == waits["engine"]
    # an actor that the cluster gave to the node before it knew of its end has failed; one that waits has not
    assert not [event for event in events("start failed") if is_after(event, waits) or event["engine"] != waits["engine"]]
    assert events("place given up") == []
    assert pl.scan_ipc(str(run / "answers" / "*.arrow")).filter(pl.col("error").is_not_null()).collect().is_empty()
