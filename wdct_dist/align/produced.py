"""The checkpoints that alignment produced in a run, and what they came from: RUN/align/BRANCH/…, each with its provenance.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from wdct_dist.align import preferences
from wdct_dist.metrics.change import Aligned
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.storage import TEMPORARY, Store

FOLDER = "align"
PROVENANCE = "provenance.json"
TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Produced:
    """A checkpoint that a stage of training made."""

    name: str
    """Its folder below RUN/align, such as `small-word-seed0/sft`."""
    branch: str
    stage: str
    seed: int
    epoch: int | None
    """None: the end of the stage."""
    parent_id: str
    parent_digest: str
    directory: str
    """Where it lies, as a path."""


def find_produced(store: Store) -> list[Produced]:
    """What the run's folder `align` holds, by branch and in the order of training; empty where nothing was aligned.

    What is not whole is under a hidden name yet.
    """
    found = []
    for file in store.names_below(FOLDER, PROVENANCE):
        name = file.removeprefix(f"{FOLDER}/").removesuffix(f"/{PROVENANCE}")
        if any(part.startswith(TEMPORARY) for part in name.split("/")):
            continue
        try:
            record = json.loads(store.read(file))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("parent"), dict) and "branch" in record and "stage" in record:
            parent = record["parent"]
            found.append(
                Produced(
                    name,
                    str(record["branch"]),
                    str(record["stage"]),
                    int(record.get("seed") or 0),
                    None if record.get("epoch") is None else int(record["epoch"]),
                    str(parent.get("checkpoint_id")),
                    str(parent.get("digest")),
                    store.path(f"{FOLDER}/{name}"),
                )
            )
    return sorted(found, key=lambda one: (one.branch, one.stage != "sft", one.epoch is None, one.epoch or 0))


def find_aligned(store: Store, checkpoints: Sequence[Mapping[str, Any]]) -> list[Aligned]:
    """The produced checkpoints that the run evaluated, in the order of training; `checkpoints` as its provenance lists them.

    A branch without items to align, trained as a control, is held against the preferences of the branches from the same baseline.
    """
    produced = find_produced(store)
    if not produced:
        return []
    by_branch = {file.split("/")[1]: pl.DataFrame(read_table(store, file)) for file in store.names_below(FOLDER, preferences.NAME)}
    ids = {one["checkpoint_id"]: made for one in checkpoints if (made := _produced_as(one, produced)) is not None}
    found: list[Aligned] = []
    for checkpoint_id, made in sorted(ids.items(), key=lambda one: produced.index(one[1])):
        own = [table] if (table := by_branch.get(made.branch)) is not None and table["target_option"].count() else []
        for table in own or _held_against(made, ids, by_branch):
            found.append(
                Aligned(checkpoint_id, str(table["baseline_id"][0]), made.branch, made.stage, made.seed, made.epoch, table, not own)
            )
    return found


def _produced_as(checkpoint: Mapping[str, Any], produced: Sequence[Produced]) -> Produced | None:
    """Which of `produced` an evaluated checkpoint is: by its directory or, where the run was moved, by its name."""
    places = {str(checkpoint.get("directory")), str(checkpoint.get("source"))}
    by_place = [one for one in produced if places & {one.directory, str(Path(one.directory).resolve())}]
    by_name = [one for one in produced if checkpoint["checkpoint_id"] in (one.name, f"{FOLDER}/{one.name}")]
    return next(iter((*by_place, *by_name)), None)


def _held_against(made: Produced, ids: Mapping[str, Produced], by_branch: Mapping[str, pl.DataFrame]) -> list[pl.DataFrame]:
    """For a control, what was aligned from the same baseline: the first branch of each side."""
    root = made.parent_id
    while root in ids:
        root = ids[root].parent_id
    sides: dict[str, pl.DataFrame] = {}
    for _, table in sorted(by_branch.items()):
        if table["target_option"].count() and table["baseline_id"][0] == root:
            sides.setdefault(table["target_side"][0], table)
    return list(sides.values())


@dataclass(frozen=True, slots=True)
class Descent:
    """One line of the graph of checkpoints: which was trained from which."""

    child: str
    parent: str
    stage: str
    branch: str
    epoch: int | None


def find_descents(store: Store, checkpoints: Sequence[Mapping[str, Any]]) -> list[Descent]:
    """Of every produced checkpoint, in their order; named as the run evaluated them, those that it did not by their folder."""
    produced = find_produced(store)
    ids = {made.name: one["checkpoint_id"] for one in checkpoints if (made := _produced_as(one, produced)) is not None}
    by_digest = {one.get("digest"): one["checkpoint_id"] for one in checkpoints}
    return [
        Descent(
            ids.get(one.name, one.name),
            by_digest.get(one.parent_digest) or ids.get(one.parent_id, one.parent_id),
            one.stage,
            one.branch,
            one.epoch,
        )
        for one in produced
    ]


def read_training(store: Store) -> pl.DataFrame | None:
    """What all stages logged, columns of `schema.TRAINING`; None where there is nothing."""
    files = [file for file in store.names_below(FOLDER, ".arrow") if file.split("/")[-2] == TRAINING]
    return pl.concat([pl.DataFrame(read_table(store, file)) for file in files]) if files else None
