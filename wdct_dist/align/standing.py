"""How far each stage of each branch is, from what an experiment has on disk: live, dead or over.

A checkpoint that is there is done, whatever else is said; a stage whose lock is held is being trained; what a stage was stopped by, how far
it came and from where it goes on stands beside it. What failed, and what was given to the cluster, only the events say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wdct_dist.align import provenance, training_log
from wdct_dist.align.stage import WHOLE, branch_name
from wdct_dist.checkpoints.file_lock import is_held
from wdct_dist.config.align_schema import AlignConfig, Method, TargetSide

State = Literal["done", "diverged", "failed", "running", "given", "left", "waiting", "blocked"]
"""
    done      its checkpoint is there
    diverged  stopped, since it went wrong; not trained again under the same limits
    failed    it raised; the same command tries it again
    running   a process trains it
    given     the cluster has it, and no process has begun it, or none has made a step
    left      begun, and its process is no more
    waiting   not begun
    blocked   not begun, since the stage before it diverged or failed
"""


@dataclass(frozen=True, slots=True)
class StageStanding:
    """One stage of one branch."""

    branch: str
    stage: str
    state: State
    reason: str | None = None
    """Why it diverged or failed."""
    after: str | None = None
    """Where it waits or is blocked: the stage before it."""
    step: int | None = None
    """The last one that is known of; of a stage that is done, all of them."""
    num_steps: int | None = None
    steps_per_s: float | None = None
    """Since the first step of the process that trains it."""
    loss: float | None = None
    seconds: float | None = None
    """That it took, where it is done, in its last session."""
    saved_step: int | None = None
    """Of the last whole state to go on from."""


def stage_standings(
    folder: Path, config: AlignConfig, model_ids: Sequence[str], events: Iterable[Mapping[str, Any]], *, since: str | None
) -> list[StageStanding]:
    """Every stage in the order of the branches. `folder`: RUN/align. `model_ids`: of the models, in the order of the configuration.

    `since`: the time (as events have it) after which something given to the cluster is of now; None where no driver is there.
    """
    told = _told(events)
    found = []
    for model_id in model_ids:
        for side in config.target_sides:
            for seed in config.seeds:
                branch = branch_name(model_id, side, seed)
                before: StageStanding | None = None
                for method in [Method.sft] if side is TargetSide.none else config.methods:
                    last = told.get(f"{branch}/{method.value}", {})
                    before = _standing(folder / branch, method.value, config, last, since, before)
                    found.append(before)
    return found


def _told(events: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What the events say last of each stage, by BRANCH/STAGE."""
    told: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["event"] in ("task given", "task failed"):
            told[event["task"]] = event
        elif event["event"] in ("stage trained", "stage diverged"):
            told[event["stage"]] = event
    return told


def _standing(
    folder: Path, stage: str, config: AlignConfig, told: Mapping[str, Any], since: str | None, before: StageStanding | None
) -> StageStanding:
    branch = folder.name
    if (made := provenance.read(folder / stage)) is not None:
        seconds = told.get("seconds") if told.get("event") == "stage trained" else None
        return StageStanding(branch, stage, "done", step=made.get("steps"), num_steps=made.get("steps"), seconds=seconds)
    progress = training_log.read_progress_of(folder, stage)
    at: dict[str, Any] = {"saved_step": _saved_step(folder, stage)}
    if progress is not None:
        at |= {"step": progress["step"], "num_steps": progress["steps"], "loss": progress["loss"]}
    is_given = since is not None and told.get("event") == "task given" and told["time"] > since
    is_told_of = progress is not None and is_given and _changed(folder / f"{stage}.states" / training_log.PROGRESS) > told["time"]
    if is_told_of or is_held(folder / f".{stage}.lock"):
        rate = None if progress is None else progress.get("steps_per_s")
        return StageStanding(branch, stage, "running", steps_per_s=rate, **at)
    if is_given:
        return StageStanding(branch, stage, "given", **at)
    if (why := training_log.reason_to_stop(folder, stage, config.divergence)) is not None:
        return StageStanding(branch, stage, "diverged", reason=why)
    if told.get("event") == "task failed":
        return StageStanding(branch, stage, "failed", reason=told.get("reason"), **at)
    if before is not None and before.state in ("diverged", "failed", "blocked"):
        return StageStanding(branch, stage, "blocked", after=before.stage)
    if progress is not None or at["saved_step"] is not None or told:
        return StageStanding(branch, stage, "left", **at)
    return StageStanding(branch, stage, "waiting", after=None if before is None or before.state == "done" else before.stage)


def _saved_step(folder: Path, stage: str) -> int | None:
    steps = [int(file.parent.name.rpartition("-")[2]) for file in folder.glob(f"{stage}.states/checkpoint-*/{WHOLE}")]
    return max(steps, default=None)


def _changed(file: Path) -> str:
    """When a file was written, as events have it; nothing where it is gone."""
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    except OSError:
        return ""
