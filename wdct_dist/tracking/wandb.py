"""Writes a run to Weights & Biases, or, with WANDB_MODE=offline, to a folder that `wandb sync` sends later.

The id of the W&B run is ours, so the same run is found again. Figures that belong to a training's steps are logged at those: W&B takes a
step once, so a repetition adds what is new to the curves and nothing twice; every figure as it is now stands in the run's summary.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wdct_dist.errors import BadInput
from wdct_dist.report.html import NAME as PAGE
from wdct_dist.tracking.tracked_run import TrackedRun, TrackedTable, refusal

OFFLINE = ("offline", "dryrun")


def write_wandb(run: TrackedRun, folder: Path, uri: str | None, project: str) -> str:
    """Writes `run` with the files in `folder`, or renews it; returns where it is.

    `project`: a name, or `entity/name`; `uri`: of a server of one's own, else WANDB_BASE_URL or wandb.ai. Raises `BadInput` where no key
    is known, `TrackingError` where W&B does not do it.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    import wandb

    offline = wandb.setup().settings.mode in OFFLINE
    entity, _, name = project.rpartition("/")
    settings: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "disable_git": True,
        "save_code": False,
        # of the machine and process that send the run, which are not what ran it
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        **({} if uri is None else {"base_url": uri}),
    }
    try:
        # asked for before, since `init` would wait for somebody to type one, at the end of a run in the night too
        if not offline and not wandb.login(host=uri, prompt=False):
            raise BadInput("Weights & Biases has no key here: `wandb login`, or set WANDB_API_KEY; WANDB_MODE=offline writes to a folder.")
        with wandb.init(
            entity=entity or None,
            project=name,
            id=run.run_id,
            name=run.name,
            config={**run.params, **{f"wdct.{key}": value for key, value in run.facts.items()}},
            allow_val_change=True,
            tags=[] if run.finished else ["unfinished"],
            resume=None if offline else "allow",
            settings=wandb.Settings(**settings),
        ) as target:
            _write(wandb, target, run, folder)
            where = target.settings.sync_dir if offline else target.url
    except (wandb.Error, OSError, ValueError) as error:
        raise refusal("Weights & Biases", error) from error
    return f"Weights & Biases run {run.run_id} in {project}: " + (f"`wandb sync {where}` sends it" if offline else str(where))


def _write(wandb: Any, target: Any, run: TrackedRun, folder: Path) -> None:
    at: dict[int, dict[str, float]] = {}
    for one in run.metrics:
        if one.step is not None:
            at.setdefault(one.step, {})[one.name] = one.value
    for step in sorted(at):
        target.log(at[step], step=step)
    shown: dict[str, Any] = {name: _table(wandb, table) for name, table in run.tables.items()}
    if (folder / PAGE).exists():
        shown["report"] = wandb.Html(str(folder / PAGE), inject=False)
    target.log(shown, step=max(at) if at else None)
    # the last step's is what stands, whatever the order of the rows
    latest = sorted(run.metrics, key=lambda one: -1 if one.step is None else one.step)
    target.summary.update({one.name: one.value for one in latest})
    artifact = wandb.Artifact(f"wdct-{run.run_id}", type="evaluation", description=f"tables and report of {run.name}")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        artifact.add_file(str(path), name=path.relative_to(folder).as_posix())
    target.log_artifact(artifact)


def _table(wandb: Any, table: TrackedTable) -> Any:
    return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
