"""Which branches an experiment has, and what each is trained on; from a baseline's scores, without an engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.branches import Material, control_questions, find_due, find_material, plan, stage_of
from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.align_rules import load_align_config, models_of
from wdct_dist.config.align_schema import AlignConfig, Method
from wdct_dist.errors import DataError, RunDirError
from wdct_dist.tables.storage import Store


@pytest.fixture
def config(tmp_path: Path) -> AlignConfig:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        f"run_dir: {tmp_path / 'run'}\nmodels: [base]\ntarget_sides: [word, deed, none]\nseeds: [0, 1]\nheld_out: 0.25\n"
        "instructions: {ratio: 2}\nevaluation: {data: {limit: 8}}\n"
    )
    return load_align_config(file)


@pytest.fixture
def store(config: AlignConfig, said: Any, scores: Any, items: Any) -> Store:
    """A run whose baseline has answered every item with its first option, on both sides."""
    found = Store(config.run_dir)
    found.make_root()
    scores([said(item, word=0, deed=0) for item in items[:8]]).write_ipc(Path(config.run_dir) / "scores" / "items.arrow")
    return found


def branches_of(config: AlignConfig, store: Store, material: Material | None = None) -> dict[str, Any]:
    recipe = models_of(config)[0][1]
    made = plan(config, store, [(scripted_checkpoint("base"), recipe)], material or find_material(config))
    return {branch.name: branch for branch in made}


def test_every_model_side_and_seed_is_a_branch_and_a_control_is_trained_on_instructions_alone(config: AlignConfig, store: Store) -> None:
    branches = branches_of(config, store)
    assert list(branches) == [f"base-{side}-s{seed}" for side in ("word", "deed", "none") for seed in (0, 1)]
    sources = {name: Counter(example.source for example in branch.examples) for name, branch in branches.items()}
    for side in ("word", "deed"):
        counts, pairs = sources[f"base-{side}-s0"], branches[f"base-{side}-s0"].pairs
        assert counts["item"] == len(pairs) > 6  # six items to train on, each in every order
        assert counts["instruction"] == 2 * counts["item"]
        assert len({pair.item_id for pair in pairs}) == 6
        assert all(pair.chosen != pair.rejected for pair in pairs)
        preferences = pl.read_ipc(store.path(f"align/base-{side}-s0/preferences.arrow"))
        assert (preferences["target_side"].unique().item(), preferences.filter(split="held_out").height) == (side, 2)
    assert sources["base-none-s0"] == {"instruction": sources["base-word-s0"]["instruction"]}
    assert (branches["base-none-s0"].methods, branches["base-none-s0"].pairs) == ((Method.sft,), ())
    assert branches["base-word-s0"].examples != branches["base-word-s1"].examples  # other instructions, in another order


def test_a_model_without_usable_answers_stops_its_own_branches_alone(
    config: AlignConfig, store: Store, said: Any, scores: Any, items: Any
) -> None:
    answers = [said(item, word=0, deed=0) for item in items[:8]]
    silent = [said(item, word=None, deed=None, checkpoint_id="nan") for item in items[:8]]
    scores([*answers, *silent]).write_ipc(Path(config.run_dir) / "scores" / "items.arrow")
    recipe = models_of(config)[0][1]
    models = [(scripted_checkpoint(name), recipe) for name in ("base", "nan", "gone")]
    branches = plan(config, store, models, Material((), ()), {"gone": "its directory vanished"})
    stopped = {branch.name: branch.stopped for branch in branches if branch.target_side.value == "word" and branch.seed == 0}
    assert stopped["base-word-s0"] is None
    assert "No item of nan has a baseline answer on the side word" in (stopped["nan-word-s0"] or "")
    assert stopped["gone-word-s0"] == "the baseline evaluation of gone failed: its directory vanished"
    with pytest.raises(DataError, match="No item of nan has a baseline answer"):
        plan(config, store, models[1:2], Material((), ()))


def test_a_stage_is_known_by_its_parent_its_data_and_its_settings(config: AlignConfig, store: Store) -> None:
    material, base = Material((), ()), scripted_checkpoint("base")
    config = replace(config, instructions=replace(config.instructions, ratio=0.0), target_sides=config.target_sides[:1])
    branch = branches_of(config, store, material)["base-word-s0"]

    def stage(config: AlignConfig = config, parent: Any = base) -> Any:
        return stage_of(branch, Method.sft, config, material, parent)

    other = scripted_checkpoint("other")
    assert stage().identity == stage(replace(config, save_every_steps=3)).identity
    assert len({stage().identity, stage(replace(config, warmup_steps=9)).identity, stage(parent=other).identity}) == 3
    assert find_due(branch, {Method.sft: lambda parent: stage(parent=parent)}) == (stage(), (Method.dpo,))
    made = branch.folder / "sft"
    made.mkdir(parents=True)
    (made / "provenance.json").write_text('{"identity": "that of another"}')
    with pytest.raises(RunDirError, match="was made from another parent, other data or other settings"):
        find_due(branch, {Method.sft: lambda parent: stage(parent=parent)})


def test_control_questions_have_one_right_answer_and_are_read_before_anything_is_asked(config: AlignConfig, tmp_path: Path) -> None:
    limited = replace(config, divergence=replace(config.divergence, control_limit=5))
    assert len(control_questions(limited)) == 5
    (tmp_path / "opinions.jsonl").write_text(
        '{"item_id": "a", "domain": "Opinion", "word": {"question": "Which?", "options": ["x", "y"]}, '
        '"deed": {"question": "What?", "options": ["x", "y"]}}\n'
    )
    without = replace(config, divergence=replace(config.divergence, control=str(tmp_path / "opinions.jsonl")))
    with pytest.raises(DataError, match=r"a of .* has no correct_option; control questions need one"):
        find_material(without)
    missing = replace(config, divergence=replace(config.divergence, control="nowhere.jsonl"))
    with pytest.raises(DataError, match=r"there is no file nowhere\.jsonl"):
        find_material(missing)
