"""An alignment experiment: baseline → preferences → SFT → DPO → evaluation of every checkpoint → change → report.

    align(config)       the whole of it, or what is left of it
    ask_baselines       the models as they come, by the ordinary evaluation
    plan                branches: model × target side × seed, each with what it is trained on
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wdct_dist import provenance as versions_of
from wdct_dist.align import provenance, training_log
from wdct_dist.align.control import control_items
from wdct_dist.align.examples import Augmentation, asked_as, item_examples, item_pairs, mix
from wdct_dist.align.instructions import read_instructions
from wdct_dist.align.preferences import Preferences, find_preferences, write_preferences
from wdct_dist.align.stage import Question, Settings, Stage, StageName, StageReport
from wdct_dist.align.types import Example, Pair
from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.config.align_rules import FREE_TO_CHANGE, Recipe, models_of
from wdct_dist.config.align_schema import AlignConfig, Method, TargetSide
from wdct_dist.config.load import differences, from_yaml_into, to_yaml
from wdct_dist.config.schema import Orders, PromptFormat
from wdct_dist.dispatch import ray_environment
from wdct_dist.dispatch.task_size import TaskSize, size_task
from wdct_dist.errors import (
    EXIT_COMPLETE,
    EXIT_INCOMPLETE,
    BadInput,
    CheckpointError,
    ConfigError,
    DataError,
    EngineError,
    RunDirError,
)
from wdct_dist.ids import slug
from wdct_dist.items.load import read_records
from wdct_dist.items.selection import select_items
from wdct_dist.items.types import Item
from wdct_dist.paraphrasing import read_paraphrases
from wdct_dist.pipeline import Outcome, evaluate, find_checkpoints
from wdct_dist.prompts.build import build_prompts
from wdct_dist.tables.arrow_file import scan
from wdct_dist.tables.events import EventLog
from wdct_dist.tables.run_dir import locked, read_provenance
from wdct_dist.tables.storage import Store

FOLDER = "align"
CONFIG = f"{FOLDER}/config.yaml"

SAY_EVERY_S = 20.0
"""Between two lines that say how far training is."""

PACKAGES = ("trl", "peft", "datasets")
"""What training needs beside an engine."""


@dataclass(slots=True)
class Branch:
    """One model, aligned on one side with one seed."""

    name: str
    model: Checkpoint
    recipe: Recipe
    target_side: TargetSide
    seed: int
    methods: tuple[Method, ...]
    folder: Path
    examples: tuple[Example, ...] = ()
    pairs: tuple[Pair, ...] = ()
    stopped: str | None = None
    """Why it was given up, or None."""

    def checkpoint_id(self, stage: StageName, epoch: int | None = None) -> str:
        return f"{self.name}/{stage}" if epoch is None else f"{self.name}/{stage}-epoch{epoch}"


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
        if baseline.exit_code != EXIT_COMPLETE:
            return Experiment(baseline)
        store.write(CONFIG, to_yaml(config).encode())
        branches = plan(config, store, models, material)
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


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained with beside the items; read once, before anything is asked, so that what is wrong with it is said at once."""

    instructions: tuple[Example, ...]
    control: tuple[Question, ...]


def find_material(config: AlignConfig) -> Material:
    """The instructions and the control questions. Raises `DataError` where they cannot be read."""
    setting = config.instructions.path if config.instructions.ratio > 0 and Method.sft in config.methods else None
    if setting is None:
        return Material((), control_questions(config))
    read = read_instructions(setting)
    print(*read.lines(), sep="\n", file=sys.stderr)
    return Material(read.examples, control_questions(config))


def ask_baselines(config: AlignConfig, store: Store, models: Sequence[tuple[Checkpoint, Recipe]]) -> Outcome:
    """The models' own answers. Checkpoints that were evaluated before stay in the tables; new ones come with `ask_all`."""
    asked = {one["checkpoint_id"] for one in read_provenance(store).get("checkpoints", [])}
    made = [entry for branch in branches_of(config, store, models) for entry in made_entries(branch) if entry["id"] in asked]
    return evaluate(config.evaluation, [*config.evaluation.checkpoints, *made])


def branches_of(config: AlignConfig, store: Store, models: Sequence[tuple[Checkpoint, Recipe]]) -> list[Branch]:
    """Every branch, without what it is trained on."""
    assert store.local is not None
    found = []
    for model, recipe in models:
        for side in config.target_sides:
            for seed in config.seeds:
                name = f"{slug(model.checkpoint_id)}-{side.value}-s{seed}"
                methods = (Method.sft,) if side is TargetSide.none else tuple(config.methods)
                found.append(Branch(name, model, recipe, side, seed, methods, store.local / FOLDER / name))
    return found


def plan(config: AlignConfig, store: Store, models: Sequence[tuple[Checkpoint, Recipe]], material: Material) -> list[Branch]:
    """The branches with what they are trained on, which is written to the run: preferences, and how many examples of what."""
    branches = branches_of(config, store, models)
    items = list(select_items(config.evaluation.data))
    found: dict[tuple[str, str], Preferences] = {}
    for branch in branches:
        sides = ["word", "deed"] if branch.target_side is TargetSide.none else [branch.target_side.value]
        for side in sides:
            key = branch.model.checkpoint_id, side
            if key not in found:
                found[key] = _preferences(config, store, items, branch.model, side)
                print(*found[key].lines(), sep="\n", file=sys.stderr)
            if branch.target_side is not TargetSide.none:
                write_preferences(store.child(f"{FOLDER}/{branch.name}"), found[key])
        _fill(branch, config, store, items, found[branch.model.checkpoint_id, sides[0]], material.instructions)
    return branches


def _preferences(config: AlignConfig, store: Store, items: Sequence[Item], model: Checkpoint, side: str) -> Preferences:
    return find_preferences(
        scan(store, "scores/items.arrow"),
        items,
        model.checkpoint_id,
        side,
        domains=config.domains,
        held_out=config.held_out,
        seed=config.split_seed,
    )


def _fill(
    branch: Branch, config: AlignConfig, store: Store, items: Sequence[Item], preferences: Preferences, instructions: Sequence[Example]
) -> None:
    """What a branch is trained on; of the control, as many instructions as the others have."""
    augmentation = Augmentation(config.augment.orders.value, config.augment.paraphrases, config.augment.order_seed)
    written = read_paraphrases(store, config.evaluation)
    arguments = preferences, items, config.evaluation, augmentation
    if Method.sft in branch.methods:
        examples = item_examples(*arguments, written=written)
        ratio = config.instructions.ratio if instructions else 0.0
        if config.instructions.limit is not None:
            ratio = min(ratio, config.instructions.limit / len(examples)) if examples else ratio
        mixed = mix(examples, instructions, ratio=ratio, seed=branch.seed)
        print(*(f"{branch.name}: {line}" for line in mixed.lines()), sep="\n", file=sys.stderr)
        only = branch.target_side is TargetSide.none
        branch.examples = tuple(one for one in mixed.examples if not only or one.source == "instruction")
        if not branch.examples:
            raise DataError(f"{branch.name}: there is nothing to train on: the control needs instructions, and the mix has none.")
    if Method.dpo in branch.methods:
        branch.pairs = tuple(item_pairs(*arguments, written=written))


def train(config: AlignConfig, store: Store, branches: Sequence[Branch], material: Material) -> str | None:
    """Trains every stage that is not done; returns the signal that stopped it, or None. Branches that fail are marked as stopped."""
    ray_environment.prepare()
    from wdct_dist.dispatch.ray_task import Task, run_tasks

    stages = {
        (branch.name, method): partial(stage_of, branch, method, config, material) for branch in branches for method in branch.methods
    }
    tasks: list[Task[StageReport]] = []
    for branch in branches:
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
    outcome = run_tasks(
        tasks,
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


def find_due(branch: Branch, stages: Mapping[Method, Callable[[Checkpoint], Stage]]) -> tuple[Stage, Sequence[Method]] | None:
    """The first stage of a branch that is not done, and those after it; None where there is none, or the branch was stopped before."""
    parent = branch.model
    for place, method in enumerate(branch.methods):
        stage = stages[method](parent)
        if not provenance.is_made(stage, stage.checkpoint):
            why = training_log.read_diverged(stage)
            if why is None:
                return stage, branch.methods[place + 1 :]
            branch.stopped = f"{stage.name}: {why}"
            return None
        parent = made_checkpoint(branch, method)
    return None


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


def stage_of(branch: Branch, method: Method, config: AlignConfig, material: Material, parent: Checkpoint) -> Stage:
    """A stage of a branch, from `parent`."""
    evaluation = config.evaluation
    settings = Settings(
        method=branch.recipe.stage(method),
        lora=branch.recipe.lora,
        precision=branch.recipe.precision,
        optimizer=config.optimizer,
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        max_length=config.max_length,
        gradient_checkpointing=config.gradient_checkpointing,
        keeps_epochs=config.evaluate_each_epoch,
        prompt=evaluation.prompt,
        seed=branch.seed,
    )
    return Stage(
        branch=branch.name,
        name=method.value,
        parent=parent,
        folder=branch.folder,
        data=branch.examples if method is Method.sft else branch.pairs,
        control=material.control,
        settings=settings,
        limits=config.divergence,
        save_every_steps=config.save_every_steps,
        allow_pickle=evaluation.engine.allow_pickle,
        trust_remote_code=evaluation.engine.trust_remote_code,
        cache_gib=evaluation.cache.max_gib,
        num_threads=None,
        on_gpu=False,
        facts={"versions": versions_of.versions(), "git_commit": versions_of.git_commit(), "target_side": branch.target_side.value},
    )


def made_checkpoint(branch: Branch, method: Method) -> Checkpoint:
    """A stage's checkpoint, as the next stage is trained from it."""
    source = Source(branch.checkpoint_id(method.value), str(branch.folder / method.value))
    return describe(source, allow_pickle=False, trust_remote_code=False)


def control_questions(config: AlignConfig) -> tuple[Question, ...]:
    """The questions that training is watched with, as the evaluation would ask them. Raises `DataError` where one has no right answer."""
    setting = config.divergence.control
    if setting is None:
        return ()
    path = Path(setting).expanduser()
    if setting == "bundled":
        items: list[Item] = control_items()
    elif path.is_file():
        items = [record.item for record in read_records(path) if record.item is not None]
    else:
        raise DataError(f"divergence.control: there is no file {setting}; give one in the items' format, `bundled`, or null.")
    items = items[: config.divergence.control_limit]
    by_id = {item.item_id: item for item in items}
    found = []
    # in one order each, drawn at random: none of them is asked twice
    settings = replace(asked_as(config.evaluation, items, Augmentation()), orders=Orders.random)
    for prompt in build_prompts(items, settings):
        correct = by_id[prompt.item_id].correct_option
        if correct is None:
            raise DataError(f"divergence.control: {prompt.item_id} of {setting} has no correct_option; control questions need one.")
        if prompt.side == "word":
            found.append(Question(prompt.messages, prompt.labels, prompt.permutation.index(correct)))
    return tuple(found)


def made_entries(branch: Branch) -> list[dict[str, str]]:
    """What there is of a branch's checkpoints, as entries of `checkpoints`; in the order in which they are made."""
    found = []
    for method in branch.methods:
        epochs = range(1, branch.recipe.stage(method).epochs)
        places: Iterable[tuple[int | None, Path]] = [
            *((epoch, branch.folder / f"{method.value}-epoch{epoch}") for epoch in epochs),
            (None, branch.folder / method.value),
        ]
        for epoch, directory in places:
            if provenance.read(directory) is not None:
                found.append({"id": branch.checkpoint_id(method.value, epoch), "path": str(directory)})
    return found


def ask_all(config: AlignConfig, store: Store, branches: Sequence[Branch]) -> Outcome:
    """The evaluation of every checkpoint that there is."""
    made = [entry for branch in branches for entry in made_entries(branch)]
    return evaluate(config.evaluation, [*config.evaluation.checkpoints, *made])
