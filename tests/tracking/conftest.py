"""A scripted run to be tracked: two steps of a training and where it began, two languages, names and settings that trackers refuse."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = {
    "checkpoints": ["run1", "run1-100", "run1-200", "org/one", "org-one", "a/../b: <模型>"],
    "variants": ["direct", "augmented"],
    "augment": {"wordings": [0], "label_sets": ["letters", "digits"]},
    "data": {"languages": ["en", "zh"], "limit": 3},
    "engine": {"kind": "scripted"},
    "dispatch": {"executor": "local"},
    "metrics": {"bootstrap_resamples": 20},
    "report": {"html": False},
}


@pytest.fixture(scope="session")
def run(evaluated: Callable[[str, dict[str, Any]], Path]) -> Path:
    run = evaluated("tracking", CONFIG)
    # what a page of a run in a bucket might say
    (run / "report.html").write_text("<p>run s3://KEY:SECRET@bucket/run", encoding="utf-8")
    return run


@pytest.fixture
def wdct(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `wdct` with a Python in a process of its own, in an empty folder and without what the user's own trackers know."""

    def call(python: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))}
        home = {"HOME": str(tmp_path), "WDCT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        home["WANDB__SERVICE_WAIT"] = "300"  # seconds until W&B's own process has to be there; of itself it waits for 30
        command = [python, "-m", "wdct_dist", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=kept | home | environment, capture_output=True, text=True, check=False)

    return call
