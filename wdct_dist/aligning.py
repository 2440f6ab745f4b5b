"""An alignment experiment: baseline → preferences → SFT → DPO → evaluation of every checkpoint → change → report.

    align(config)       the whole of it, or what is left of it
    ask_baselines       the models as they come, by the ordinary evaluation
    plan                branches: model × target side × seed, each with what it is trained on (`branches.py`)
    train               the branches' stages as Ray tasks, side by side where the cluster has room
    ask_all             every checkpoint that there is now, by the same evaluation in the same run directory

Evaluation and training take turns: engines end before training begins, and training ends before engines start, so that a device is never
shared. Each stage is found on disk where it is done, and gone on with where it was killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from wdct_dist.align import training_log
from wdct_dist.align.stage import Stage, StageReport
from wdct_dist.branches import FOLDER, Branch, Material, branches_of, find_due, find_material, made_checkpoint, made_entries, plan, stage_of
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.align_rules import FREE_TO_CHANGE, Recipe, models_of
from wdct_dist.config.align_schema import AlignConfig, Method
from wdct_dist.config.load import differences, from_yaml_into, to_yaml
from wdct_dist.config.schema import PromptFormat
from wdct_dist.dispatch import ray_environment
from wdct_dist.dispatch.task_size import TaskSize, size_task
from wdct_dist.errors import (
    EXIT_COMPLETE,
    EXIT_INCOMPLETE,
    BadInput,
    CheckpointError,
    ConfigError,
    EngineError,
    RunDirError,
)
from wdct_dist.ids import slug
from wdct_dist.pipeline import Outcome, evaluate, find_checkpoints
from wdct_dist.tables.events import EventLog
from wdct_dist.tables.run_dir import locked, read_provenance
from wdct_dist.tables.shared_directory import nonce_file
from wdct_dist.tables.storage import Store

CONFIG = f"{FOLDER}/config.yaml"

SAY_EVERY_S = 20.0
"""Between two lines that say how far training is."""

PACKAGES = ("trl", "peft", "datasets")
"""What training needs beside an engine."""


@dataclass(slots=True)
class Experiment:
    """How an experiment ended."""

    evaluation: Outcome
    """Of the last evaluation."""
    stopped: dict[str, str] = field(default_factory=dict)
    """Branches that were given up, with the reason."""
    interrupted: str | None = None
    is_trained: bool = False
    """Whether every stage is over."""

    @property
    def exit_code(self) -> int:
        is_whole = self.is_trained and not self.stopped and self.evaluation.exit_code == EXIT_COMPLETE
        return EXIT_COMPLETE if is_whole else EXIT_INCOMPLETE

    def sentence(self) -> str:
        """How it ended, in words."""
        parts = [self.evaluation.sentence()]
        parts += [f"branch {name} was stopped: {why.rstrip('.')}" for name, why in self.stopped.items()]
        if self.interrupted is not None:
            parts.append(f"training was stopped by {self.interrupted}; what was saved is safe, the same command goes on from there")
        return "; ".join(parts)


def align(config: AlignConfig) -> Experiment:
    """Runs an experiment, or goes on with one."""
    require_packages()
    store = open_experiment(config)
    with locked(store.child(FOLDER)):
        models = find_models(config)
        material = find_material(config)
        baseline = ask_baselines(config, store, models)
        failed = baseline.failed_checkpoints
        if baseline.interrupted is not None or baseline.incomplete_checkpoints - failed.keys():
            return Experiment(baseline)
        store.write(CONFIG, to_yaml(config).encode())
        branches = plan(config, store, models, material, failed)
        interrupted = train(config, store, branches, material)
        stopped = {branch.name: branch.stopped for branch in branches if branch.stopped is not None}
        if interrupted is not None:
            return Experiment(baseline, stopped, interrupted)
        outcome = ask_all(config, store, branches)
        return Experiment(outcome, stopped, outcome.interrupted, is_trained=True)


def require_packages() -> None:
    """Raises `BadInput` where what trains is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise BadInput(f"wdct align: {', '.join(missing)} is not installed; `pip install 'wdct_dist[align]'` brings it.")


def open_experiment(config: AlignConfig) -> Store:
    """The run directory, checked to be of this experiment where there is one already."""
    store = Store(config.run_dir)
    assert store.local is not None, "checked with the configuration"
    if store.exists(CONFIG):
        try:
            before = from_yaml_into(AlignConfig, store.read(CONFIG).decode())
        except Exception as error:
            raise RunDirError(f"{store.uri}: its {CONFIG} is not readable ({str(error).splitlines()[0]}); restore it.") from None
        if changed := differences(before, config, FREE_TO_CHANGE):
            raise RunDirError(
                f"run_dir: {config.run_dir} holds an experiment of another configuration:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nGive these settings as they were to go on, or another run_dir to start anew."
            )
    try:
        (store.local / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(f"run_dir: {config.run_dir} cannot be written ({error}); choose another with run_dir=….") from None
    return store


def find_models(config: AlignConfig) -> list[tuple[Checkpoint, Recipe]]:
    """The models to align. Raises `CheckpointError` where one of them cannot be trained as it is asked to be."""
    recipes = [recipe for _, recipe in models_of(config)]
    found, broken = find_checkpoints(config.evaluation)
    if broken:
        raise CheckpointError("\n".join(f"models: {name}: {reason}" for name, reason in broken.items()))
    if len(found) != len(recipes):
        raise ConfigError(f"models: {len(recipes)} entries name {len(found)} checkpoints; name each model by an entry of its own.")
    for model, recipe in zip(found, recipes, strict=True):
        _require_trainable(model, recipe, config)
    names = [slug(model.checkpoint_id) for model in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"models: {', '.join(model.checkpoint_id for model in found)} have names that are too alike; give each an `id`.")
    return list(zip(found, recipes, strict=True))


def _require_trainable(model: Checkpoint, recipe: Recipe, config: AlignConfig) -> None:
    name = model.checkpoint_id
    if config.evaluation.prompt.format is PromptFormat.chat and not model.has_chat_template:
        raise CheckpointError(
            f"models: {name} has no chat template, and evaluation.prompt.format: chat needs one; use auto or plain, or add "
            "chat_template.jinja to the model."
        )
    if model.kind == "adapter" and recipe.lora.r is None:
        raise CheckpointError(
            f"models: {name} is a LoRA adapter, and all weights would be trained: adapter and full weights do not mix. Give lora.r to "
            "train a further adapter over the merged model, or name a model with full weights."
        )
    settings = model.directory / "config.json"
    if settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("quantization_config"):
        raise CheckpointError(f"models: {name} has quantised weights, which are not trained here; name the model that it was made from.")


def ask_baselines(config: AlignConfig, store: Store, models: Sequence[tuple[Checkpoint, Recipe]]) -> Outcome:
    """The models' own answers. Checkpoints that were evaluated before stay in the tables; new ones come with `ask_all`."""
    asked = {one["checkpoint_id"] for one in read_provenance(store).get("checkpoints", [])}
    made = [entry for branch in branches_of(config, store, models) for entry in made_entries(branch) if entry["id"] in asked]
    return evaluate(config.evaluation, [*config.evaluation.checkpoints, *made])


def train(config: AlignConfig, store: Store, branches: Sequence[Branch], material: Material) -> str | None:
    """Trains every stage that is not done; returns the signal that stopped it, or None. Branches that fail are marked as stopped."""
    ray_environment.prepare()
    from wdct_dist.dispatch.ray_task import Task, run_tasks

    stages = {
        (branch.name, method): partial(stage_of, branch, method, config, material) for branch in branches for method in branch.methods
    }
    tasks: list[Task[StageReport]] = []
    for branch in branches:
        if branch.stopped is not None:
            continue
        due = find_due(branch, {method: stages[branch.name, method] for method in branch.methods})
        if due is None:
            continue
        first, later = due
        tasks.append(Task(first.title, None, partial(_first, first)))
        tasks += [Task(branch.checkpoint_id(one.value), first.title, partial(_later, branch, stages[branch.name, one])) for one in later]
    if not tasks:
        return None
    events = EventLog(store)

    def say(event: str, **facts: Any) -> None:
        events.add(event, **facts)
        print(f"{event}: {', '.join(f'{key} {value}' for key, value in facts.items())}", file=sys.stderr, flush=True)

    by_title = {branch.checkpoint_id(method.value): branch for branch in branches for method in branch.methods}
    with nonce_file(store) as nonce:
        outcome = run_tasks(
            [replace(task, prepare=partial(_with_nonce, task.prepare, nonce)) for task in tasks],
            train_stage,
            partial(size_task, config.resources.cpus, config.resources.gpus, workers=config.resources.workers),
            config.evaluation.dispatch,
            max_attempts=config.resources.max_attempts,
            take=partial(_take, by_title, say),
            say=say,
            watch=_Progress(branches),
        )
    for title, error in outcome.failed.items():
        by_title[title].stopped = f"{title.rpartition('/')[2]}: {_said(error)}"
    events.flush()
    if outcome.failed and not outcome.results and all(branch.stopped for branch in branches):
        _raise_all(outcome.failed)
    return outcome.interrupted


def _with_nonce(prepare: Callable[[StageReport | None], Stage], nonce: str | None, before: StageReport | None) -> Stage:
    return replace(prepare(before), nonce=nonce)


def _first(stage: Stage, _: StageReport | None) -> Stage:
    return stage


def _later(branch: Branch, make: Callable[[Checkpoint], Stage], _: StageReport | None) -> Stage:
    """The stage after SFT, once that has made its checkpoint."""
    return make(made_checkpoint(branch, Method.sft))


def _take(branches: Mapping[str, Branch], say: Callable[..., None], report: StageReport) -> bool:
    """Notes what became of a stage; returns whether the next one may begin."""
    say("stage trained" if report.diverged is None else "stage diverged", **_facts(report))
    if report.diverged is not None:
        branches[report.title].stopped = f"{report.title.rpartition('/')[2]}: {report.diverged}"
    return report.diverged is None


class _Progress:
    """Says now and then how far the stages are that are being trained."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._folders = [branch.folder for branch in branches]
        self._said_at = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._said_at < SAY_EVERY_S:
            return
        self._said_at = time.monotonic()
        for one in (one for folder in self._folders for one in training_log.read_progress(folder)):
            loss = "" if one["loss"] is None else f", loss {one['loss']:.3g}"
            print(f"{one['stage']}: step {one['step']:,} of {one['steps']:,}{loss}", file=sys.stderr, flush=True)


def train_stage(stage: Stage, size: TaskSize) -> StageReport:
    """What a training task does, in a process of its own."""
    # read while the libraries are imported: nothing is fetched, since all there is to load is on this node, and nobody reads progress bars
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"})
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from wdct_dist.align.trainer import train as train_here

    num_threads = max(1, int(size.cpus)) if not size.gpus else None
    return train_here(replace(stage, num_threads=num_threads, on_gpu=size.gpus > 0, num_workers=size.workers))


def _facts(report: StageReport) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "stage": report.title,
        "seconds": round(report.seconds, 1),
        "steps": report.num_steps,
        "examples": report.num_examples,
        "too_long": report.num_too_long,
        "resumed_at": report.resumed_at,
        "control_accuracy": [round(share, 3) for share in report.control_accuracy],
    }
    return facts if report.diverged is None else {**facts, "reason": report.diverged}


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, BadInput) else f"{type(error).__name__}: {text[:500]}"


def _raise_all(failed: Mapping[str, BaseException]) -> None:
    """Nothing could be trained: the first reason is the experiment's, bad input where it is."""
    first = next(iter(failed.values()))
    if isinstance(first, BadInput):
        raise first
    raise EngineError("no branch could be trained: " + "; ".join(f"{title}: {_said(error)}" for title, error in failed.items())) from first


def ask_all(config: AlignConfig, store: Store, branches: Sequence[Branch]) -> Outcome:
    """The evaluation of every checkpoint that there is."""
    made = [entry for branch in branches for entry in made_entries(branch)]
    return evaluate(config.evaluation, [*config.evaluation.checkpoints, *made])
