"""What a training logged, as an Arrow table a stage: RUN/align/BRANCH/training/STAGE.arrow; and why it was stopped, where it diverged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from wdct_dist.align.stage import Stage
from wdct_dist.config.align_schema import DivergenceConfig
from wdct_dist.config.load import as_plain
from wdct_dist.tables import schema
from wdct_dist.tables.storage import TEMPORARY, Store

FOLDER = "training"

PROGRESS = "progress.json"

COLUMNS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "reward_margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
    "grad_norm": "grad_norm",
}
"""Our columns, and what the trainer calls them."""


def write(stage: Stage, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table of a stage: a row for each step that was logged."""
    rows = [
        {
            "branch": stage.branch,
            "stage": stage.name,
            "step": int(entry["step"]),
            "epoch": float(entry.get("epoch") or 0),
            **{column: None if (value := entry.get(name)) is None else float(value) for column, name in COLUMNS.items()},
        }
        for entry in history
        if "loss" in entry
    ]
    (stage.folder / FOLDER).mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema.TRAINING, options=schema.IPC_OPTIONS) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema.TRAINING))
    Store(str(stage.folder)).write(f"{FOLDER}/{stage.name}.arrow", sink.getvalue())


def write_progress(stage: Stage, step: int, num_steps: int, loss: float | None, steps_per_s: float | None = None) -> None:
    """How far the stage is, for whoever waits for it; gone with its saved states."""
    record = {"stage": stage.title, "step": step, "steps": num_steps, "loss": loss, "steps_per_s": steps_per_s}
    beside = stage.states / f"{TEMPORARY}{PROGRESS}"
    beside.write_text(json.dumps(record))
    beside.replace(stage.states / PROGRESS)


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """How far the stages are that are being trained in a branch's folder."""
    names = sorted(file.parent.name.removesuffix(".states") for file in folder.glob(f"*.states/{PROGRESS}"))
    return [one for name in names if (one := read_progress_of(folder, name)) is not None]


def read_progress_of(folder: Path, name: str) -> dict[str, Any] | None:
    """How far the stage `name` is; None where it has not said, or is over."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / f"{name}.states" / PROGRESS).read_text())
        return found if isinstance(found, dict) else None
    return None


def write_diverged(stage: Stage, reason: str) -> None:
    """Notes that the stage was stopped, so that it is not trained again to the same end."""
    record = {"identity": stage.identity, "limits": as_plain(stage.limits), "reason": reason}
    Store(str(stage.folder)).write(_diverged_name(stage.name), json.dumps(record, indent=2, ensure_ascii=False).encode())


def read_diverged(stage: Stage) -> str | None:
    """Why the stage was stopped, under the limits that it has now; None where it was not."""
    record = _diverged(stage.folder, stage.name)
    if record is None or record.get("limits") != as_plain(stage.limits):
        return None
    return str(record["reason"]) if record.get("identity") == stage.identity else None


def reason_to_stop(folder: Path, name: str, limits: DivergenceConfig) -> str | None:
    """Why the stage `name` of the branch in `folder` was stopped, of whatever it was made, under these limits; None where it was not."""
    record = _diverged(folder, name)
    return None if record is None or record.get("limits") != as_plain(limits) else str(record["reason"])


def _diverged(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(Store(str(folder)).read(_diverged_name(name)))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _diverged_name(name: str) -> str:
    return f"{name}.diverged.json"
