"""A run written to an experiment tracker: `tracked_run` says what is written, `mlflow` and `wandb` write it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

MLFLOW, WANDB = "mlflow", "wandb"
TRACKERS: Mapping[str, str] = {MLFLOW: "MLflow", WANDB: "Weights & Biases"}
"""Names by what `--to` takes; it is also the name of the extra and of the package."""


def what_tracking_lacks(tracker: str) -> str | None:
    """Why nothing can be written to `tracker` here, with the line that mends it; None where it can."""
    spec = find_spec(tracker)
    # W&B writes into a folder `wandb`, which Python takes for a package without contents where it stands beside it
    if spec is not None and spec.origin is not None:
        return None
    return f"{TRACKERS[tracker]} needs the package {tracker}, which is not installed: `pip install 'wdct_dist[{tracker}]'`."
