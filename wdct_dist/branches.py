"""The branches of an alignment experiment: model × target side × seed, what each is trained on, and its stages.

Nothing here trains or asks a model: it reads the baseline's scores and what is on disk, and says what is to be done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wdct_dist import provenance as versions_of
from wdct_dist.align import provenance, training_log
from wdct_dist.align.control import control_items
from wdct_dist.align.examples import Augmentation, asked_as, item_examples, item_pairs, mix
from wdct_dist.align.instructions import read_instructions
from wdct_dist.align.preferences import Preferences, find_preferences, write_preferences
from wdct_dist.align.stage import Question, Settings, Stage, StageName, branch_name
from wdct_dist.align.types import Example, Pair
from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.config.align_rules import Recipe
from wdct_dist.config.align_schema import AlignConfig, Method, TargetSide
from wdct_dist.config.schema import Orders
from wdct_dist.errors import DataError
from wdct_dist.items.load import read_records
from wdct_dist.items.selection import select_items
from wdct_dist.items.types import Item
from wdct_dist.paraphrasing import read_paraphrases
from wdct_dist.prompts.build import build_prompts
from wdct_dist.tables.arrow_file import scan
from wdct_dist.tables.storage import Store

FOLDER = "align"
"""Of a run: its branches, each in a folder of its own."""


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


def branches_of(config: AlignConfig, store: Store, models: Sequence[tuple[Checkpoint, Recipe]]) -> list[Branch]:
    """Every branch, without what it is trained on."""
    assert store.local is not None
    found = []
    for model, recipe in models:
        for side in config.target_sides:
            for seed in config.seeds:
                name = branch_name(model.checkpoint_id, side, seed)
                methods = (Method.sft,) if side is TargetSide.none else tuple(config.methods)
                found.append(Branch(name, model, recipe, side, seed, methods, store.local / FOLDER / name))
    return found


def plan(
    config: AlignConfig,
    store: Store,
    models: Sequence[tuple[Checkpoint, Recipe]],
    material: Material,
    failed: Mapping[str, str] | None = None,
) -> list[Branch]:
    """Return the branches with their training data, and write the preferences of each branch to the run.

    `failed`: models without a baseline evaluation, with the reason. Their branches are stopped, and so is each branch that has nothing to
    train on; the others go on. Raises `DataError` if no branch is left.
    """
    branches = branches_of(config, store, models)
    items = list(select_items(config.evaluation.data))
    found: dict[tuple[str, str], Preferences] = {}
    for branch in branches:
        try:
            _plan_branch(branch, config, store, items, found, material, failed or {})
        except DataError as error:
            branch.stopped = str(error)
            print(f"branch {branch.name} is stopped: {error}", file=sys.stderr)
    if all(branch.stopped is not None for branch in branches):
        raise DataError(branches[0].stopped)
    return branches


def _plan_branch(
    branch: Branch,
    config: AlignConfig,
    store: Store,
    items: Sequence[Item],
    found: dict[tuple[str, str], Preferences],
    material: Material,
    failed: Mapping[str, str],
) -> None:
    """Fill in what the branch is trained on. `found` keeps the preferences by model and side."""
    model = branch.model.checkpoint_id
    if model in failed:
        raise DataError(f"the baseline evaluation of {model} failed: {failed[model]}")
    sides = ["word", "deed"] if branch.target_side is TargetSide.none else [branch.target_side.value]
    for side in sides:
        if (model, side) not in found:
            found[model, side] = _preferences(config, store, items, branch.model, side)
            print(*found[model, side].lines(), sep="\n", file=sys.stderr)
        if branch.target_side is not TargetSide.none:
            write_preferences(store.child(f"{FOLDER}/{branch.name}"), found[model, side])
    _fill(branch, config, store, items, found[model, sides[0]], material.instructions)


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
        max_left_out=config.max_left_out,
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
