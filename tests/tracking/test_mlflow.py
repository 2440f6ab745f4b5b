"""A run in MLflow: the real client writes it to the real server, and reads it back.

A server's requirements are too much for the common environment (165 MB; it starts in 8 s or more), so they live in one of their own, with
this package's: `pip install -e . mlflow-skinny sqlalchemy alembic flask flask-cors`. MLFLOW_PYTHON names its Python.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

PYTHON = os.environ.get("MLFLOW_PYTHON", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="MLFLOW_PYTHON names no Python that has mlflow and what wdct_dist needs")

Wdct = Callable[..., subprocess.CompletedProcess[str]]

READ = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
found = []
def files(run_id, folder=None):
    for one in client.list_artifacts(run_id, folder):
        yield from files(run_id, one.path) if one.is_dir else [one.path]
for run in client.search_runs([experiment.experiment_id]):
    curves = {name: [[one.step, one.value] for one in client.get_metric_history(run.info.run_id, name)]
              for name in run.data.metrics if name.endswith("/direct/en/all")}
    table = json.load(open(client.download_artifacts(run.info.run_id, "tables/summary.json"), encoding="utf-8"))
    page = open(client.download_artifacts(run.info.run_id, "report.html"), encoding="utf-8").read()
    found.append({"id": run.info.run_id, "name": run.info.run_name, "status": run.info.status, "params": run.data.params,
                  "tags": run.data.tags, "metrics": run.data.metrics, "curves": curves,
                  "table": table, "page": page, "files": list(files(run.info.run_id))})
print(json.dumps(found))
"""


def read(server: str, experiment: str) -> list[dict[str, Any]]:
    """What the server has of an experiment, run by run."""
    ended = subprocess.run([PYTHON, "-c", READ, server, experiment], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with an empty store."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.sqlite", "--artifacts-destination", str(folder / "files")]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_run_s_settings_figures_tables_and_files_are_those_on_disk(run: Path, wdct: Wdct, server: str) -> None:
    ended = wdct(PYTHON, "track", str(run), "--to", "mlflow", "--uri", server, "--experiment", "whole")
    assert ended.returncode == 0, ended.stderr
    [found] = read(server, "whole")
    assert ended.stdout == f"{run}: new in MLflow's experiment whole: {server}/#/experiments/1/runs/{found['id']}\n"
    assert (found["name"], found["status"]) == ("run", "FINISHED")
    assert found["params"]["data.languages"] == '["en", "zh"]'
    assert found["tags"]["wdct.state"] == "complete"

    summary = pl.read_ipc(run / "scores" / "summary.arrow")
    cs = summary.filter(metric="cs", variant="direct", language="en", domain="all")
    figures = dict(cs.select("checkpoint_id", "value").iter_rows())
    curve = found["curves"]["cs/run1/direct/en/all"]
    assert sorted(curve) == [[0, figures["run1"]], [100, figures["run1-100"]], [200, figures["run1-200"]]]
    assert found["metrics"]["cs/run1/direct/en/all"] == figures["run1-200"]
    assert found["metrics"]["cs/org-one/direct/en/all"] == figures["org/one"]

    assert pl.DataFrame(found["table"]["data"], schema=found["table"]["columns"], orient="row").equals(summary)
    assert found["page"] == "<p>run s3://bucket/run"
    assert {"config.yaml", "provenance.json", "scores/summary.arrow", "scores/items.arrow", "tables/items.json"} <= set(found["files"])


def test_written_again_it_is_the_same_run_with_what_is_new(run: Path, wdct: Wdct, server: str, tmp_path: Path) -> None:
    here = Path(shutil.copytree(run, tmp_path / "here"))
    [shard, *_] = sorted((here / "answers").glob("org-one@*.arrow"))
    shard.rename(tmp_path / "aside")
    track = ("track", str(here), "--to", "mlflow", "--experiment", "again")
    assert wdct(PYTHON, "score", str(here)).returncode == 0
    ended = wdct(PYTHON, *track, MLFLOW_TRACKING_URI=server)
    assert ended.returncode == 0, ended.stderr
    assert "not finished" in ended.stderr
    [part] = read(server, "again")
    assert part["status"] == "KILLED"
    assert part["tags"]["wdct.state"].startswith("not finished")

    (tmp_path / "aside").rename(shard)
    (here / "config.yaml").write_text((here / "config.yaml").read_text().replace("shard_size: 256", "shard_size: 128"))
    assert wdct(PYTHON, "score", str(here)).returncode == 0
    for _ in range(2):
        ended = wdct(PYTHON, *track, MLFLOW_TRACKING_URI=server)
        assert ended.returncode == 0, ended.stderr
    assert "renewed in MLflow's experiment again" in ended.stdout
    assert "dispatch.shard_size stays as it was first written" in ended.stderr
    [whole] = read(server, "again")
    assert (whole["id"], whole["status"], whole["tags"]["wdct.state"]) == (part["id"], "FINISHED", "complete")
    assert (whole["params"]["dispatch.shard_size"], whole["tags"]["changed.dispatch.shard_size"]) == ("256", "128")
    assert len(whole["table"]["data"]) == pl.read_ipc(here / "scores" / "summary.arrow").height
    # scored twice, hence two points a step, and not three
    assert len(whole["curves"]["cs/run1/direct/en/all"]) == 6


def test_a_server_that_is_not_there_costs_nothing_but_a_message(run: Path, wdct: Wdct) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ended = wdct(PYTHON, "track", str(run), "--to", "mlflow", "--uri", "http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("wdct: MLflow at http://127.0.0.1:9 did not take the run (")
    assert "Traceback" not in ended.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_an_address_it_is_asked_for(run: Path, wdct: Wdct) -> None:
    ended = wdct(PYTHON, "track", str(run), "--to", "mlflow")
    assert ended.returncode == 2
    assert "MLFLOW_TRACKING_URI" in ended.stderr
