"""Writes a run to MLflow. Found again by the tag `wdct.run`; MLflow's own rules decide what of it can be renewed:

- a parameter cannot be changed: a setting that differs from before (they are of speed and place, not of what is asked) becomes a tag;
- a metric keeps its history: the same figure at the same time is the same point, so writing twice adds nothing, and a figure that was
  scored again is a later point, which is the one that is shown;
- `log_table` would add rows to those that are there, so tables are written whole, in its form.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from wdct_dist.errors import BadInput
from wdct_dist.tracking.tracked_run import TrackedRun, refusal, without_passwords

One = TypeVar("One")

RUN_TAG = "wdct.run"
MOST_METRICS, MOST_OTHERS = 1000, 100
"""What MLflow takes in one request."""
MOST_CHARACTERS = 6000
"""Of a parameter; a tag may have more."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Where MLflow looks for which artefacts are tables."""


def write_mlflow(run: TrackedRun, folder: Path, uri: str | None, experiment: str) -> str:
    """Writes `run` with the files in `folder`, or renews it; returns where it is.

    `uri`: MLFLOW_TRACKING_URI where None. Raises `BadInput` where there is neither, `TrackingError` where MLflow does not do it.
    """
    where = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not where:
        raise BadInput("MLflow: neither --uri nor MLFLOW_TRACKING_URI says where it is; give one, such as --uri http://localhost:5000.")
    # a server that is not there is told within a minute; what we import for the user reports nothing to others
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return _write(MlflowClient(tracking_uri=where), run, folder, experiment, where)
    except (MlflowException, requests.RequestException, OSError) as error:
        raise refusal(f"MLflow at {where}", error) from error


def _write(client: Any, run: TrackedRun, folder: Path, experiment: str, where: str) -> str:
    from mlflow.entities import Metric, Param, RunTag

    known = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if known is None else known.experiment_id
    found = client.search_runs([experiment_id], filter_string=f"tags.`{RUN_TAG}` = '{run.run_id}'", max_results=1)
    there = found[0] if found else client.create_run(experiment_id, run.start_ms, {RUN_TAG: run.run_id}, run.name)
    run_id = there.info.run_id

    params = {key: value[:MOST_CHARACTERS] for key, value in run.params.items()}
    changed = {key: value for key, value in params.items() if there.data.params.get(key, value) != value}
    tags = {f"wdct.{key}": value[:MOST_CHARACTERS] for key, value in run.facts.items()}
    tags |= {f"changed.{key}": value for key, value in changed.items()}
    for key in changed:
        print(f"MLflow does not change parameters: {key} stays as it was first written, and is the tag changed.{key} now", file=sys.stderr)
    for some in _parts((Param(key, value) for key, value in params.items() if key not in changed), MOST_OTHERS):
        client.log_batch(run_id, params=some)
    for some in _parts((RunTag(key, value) for key, value in tags.items()), MOST_OTHERS):
        client.log_batch(run_id, tags=some)
    for some in _parts((Metric(one.name, one.value, run.scored_ms, one.step or 0) for one in run.metrics), MOST_METRICS):
        client.log_batch(run_id, metrics=some)

    client.log_artifacts(run_id, str(folder))
    for name, table in run.tables.items():
        client.log_dict(run_id, {"columns": table.columns, "data": table.rows}, f"tables/{name}.json")
    client.set_tag(run_id, TABLES_TAG, json.dumps([{"path": f"tables/{name}.json", "type": "table"} for name in run.tables]))
    client.set_terminated(run_id, "FINISHED" if run.finished else "KILLED", run.end_ms)
    place = f"#/experiments/{experiment_id}/runs/{run_id}" if where.startswith("http") else f" run {run_id}"
    return f"{'renewed' if found else 'new'} in MLflow's experiment {experiment}: {without_passwords(where).rstrip('/')}/{place}"


def _parts(many: Iterable[One], size: int) -> Iterator[list[One]]:
    each = iter(many)
    while part := list(islice(each, size)):
        yield part
