"""How far the training of an alignment experiment is, as lines for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from wdct_dist.align.produced import FOLDER
from wdct_dist.align.standing import StageStanding, stage_standings
from wdct_dist.checkpoints.file_lock import is_held
from wdct_dist.config.align_schema import AlignConfig
from wdct_dist.config.load import from_yaml_into
from wdct_dist.errors import RunDirError
from wdct_dist.tables.run_dir import CONFIG, LOCK
from wdct_dist.tables.storage import Store


def is_experiment(store: Store) -> bool:
    """Whether the run is of a `wdct align`. Looked at where it is local: alignment is at home nowhere else."""
    return store.local is not None and (store.local / FOLDER / LOCK).exists()


def has_driver(store: Store) -> bool:
    """Whether a `wdct align` on this machine has the run."""
    return store.local is not None and is_held(store.local / FOLDER / LOCK)


def read_training_standings(store: Store, record: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[StageStanding]:
    """Every stage of every branch; none before the baselines are evaluated. `record`: provenance.json."""
    name = f"{FOLDER}/{CONFIG}"
    if store.local is None or not store.exists(name):
        return []
    try:
        config = from_yaml_into(AlignConfig, store.read(name).decode())
    except Exception as error:
        raise RunDirError(f"{store.uri}: its {name} is not readable ({str(error).splitlines()[0]}); restore it.") from None
    # the models stand first among the checkpoints of every evaluation; what was made of them comes after
    models = [one["checkpoint_id"] for one in record.get("checkpoints", [])][: len(config.models)]
    # each training comes after an evaluation: what was given before the last one began is of an earlier training
    since = max((str(one["start"]) for one in record.get("sessions", [])), default="") if has_driver(store) else None
    return stage_standings(store.local / FOLDER, config, models, events, since=since)


def training_lines(standings: Sequence[StageStanding]) -> list[str]:
    """A line a stage."""
    lines = [f"    {one.branch}/{one.stage}: {stage_text(one)}" for one in standings]
    return ["  training:", *lines] if lines else []


def stage_text(one: StageStanding) -> str:
    """What is to be said of a stage."""
    if one.state == "done":
        steps = "" if one.step is None else f", {one.step:,} steps"
        return "done" + steps + ("" if one.seconds is None else f" in {_duration(one.seconds)}")
    if one.state == "diverged":
        return f"stopped, it diverged: {one.reason}"
    if one.state == "failed":
        return f"failed: {one.reason}"
    if one.state == "running":
        return f"running, {_progress(one)}" if one.step is not None else "running, no step yet"
    if one.state == "given":
        return "given to the cluster, no step yet" + (f"; goes on from step {one.saved_step:,}" if one.saved_step else "")
    if one.state == "left":
        known = "" if one.step is None or one.num_steps is None else f", it was at step {one.step:,} of {one.num_steps:,}"
        return f"not over{known}; " + (f"goes on from step {one.saved_step:,}" if one.saved_step else "nothing is saved, it begins anew")
    if one.state == "blocked":
        return f"not trained, since there is no {one.after}"
    return "waits" if one.after is None else f"waits for {one.after}"


def _progress(one: StageStanding) -> str:
    assert one.step is not None
    parts = [f"step {one.step:,}"]
    if one.num_steps:
        parts = [f"step {one.step:,} of {one.num_steps:,} ({100 * one.step / one.num_steps:.0f} %)"]
    if one.steps_per_s:
        parts.append(f"{one.steps_per_s:,.2f} steps/s" if one.steps_per_s >= 1 else f"{1 / one.steps_per_s:,.1f} s a step")
        if one.num_steps:
            parts.append(f"{_duration((one.num_steps - one.step) / one.steps_per_s)} left")
    if one.loss is not None:
        parts.append(f"loss {one.loss:.3g}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
