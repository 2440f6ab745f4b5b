"""Produced checkpoints are found by what lies in the run, whatever names they are evaluated under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.align.preferences import find_preferences, write_preferences
from wdct_dist.align.produced import find_aligned, find_descents, find_produced, read_training
from wdct_dist.tables.storage import Store

BASE = {"checkpoint_id": "small", "digest": "d0", "directory": "/models/small", "source": "small"}


@pytest.fixture
def run(tmp_path: Path, said: Any, scores: Any, pairs_of_options: Any) -> Path:
    """Two branches of one baseline: words aligned by SFT (two epochs kept) and DPO, and a control."""
    path = tmp_path / "run"
    parents = {"sft": ("small", "d0"), "sft-epoch1": ("small", "d0"), "sft-epoch10": ("small", "d0"), "dpo": ("x", "d2")}
    for branch, folders in (("small-word-seed3", list(parents)), ("small-none-seed3", ["sft"])):
        for folder in folders:
            parent_id, digest = parents[folder]
            stage, _, epoch = folder.partition("-epoch")
            record = {"branch": branch, "stage": stage, "seed": 3, "parent": {"checkpoint_id": parent_id, "digest": digest}}
            (path / "align" / branch / folder).mkdir(parents=True)
            text = json.dumps(record | ({"epoch": int(epoch)} if epoch else {}))
            (path / "align" / branch / folder / "provenance.json").write_text(text)
    table = scores([said(item, 0, 1, checkpoint_id="small") for item in pairs_of_options])
    found = find_preferences(table, pairs_of_options, "small", "word")
    write_preferences(Store(str(path)).child("align/small-word-seed3"), found)
    return path


def evaluated(directory: Path, name: str, digest: str) -> dict[str, Any]:
    return {"checkpoint_id": name, "digest": digest, "directory": str(directory), "source": "as the configuration has it"}


def test_stages_come_in_the_order_of_training_and_their_epochs_by_number(run: Path) -> None:
    assert [(one.name.partition("/")[2], one.epoch) for one in find_produced(Store(str(run))) if one.branch == "small-word-seed3"] == [
        ("sft-epoch1", 1),
        ("sft-epoch10", 10),
        ("sft", None),
        ("dpo", None),
    ]


def test_evaluated_checkpoints_are_known_by_their_directory_through_links_too(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    words = run / "align" / "small-word-seed3"
    checkpoints = [BASE, evaluated(words / "dpo", "c", "d3"), evaluated(words / "sft", "b", "d2")]
    for place in (run, tmp_path / "link"):
        store = Store(str(place))
        found = find_aligned(store, checkpoints)
        assert [(one.checkpoint_id, one.baseline_id, one.method, one.seed, one.target_side, one.control) for one in found] == [
            ("b", "small", "sft", 3, "word", False),
            ("c", "small", "dpo", 3, "word", False),
        ]
        assert {(one.child, one.parent) for one in find_descents(store, checkpoints)} >= {("b", "small"), ("c", "b")}


def test_a_control_is_held_against_what_was_aligned_from_its_baseline(run: Path) -> None:
    control = evaluated(run / "align" / "small-none-seed3" / "sft", "none", "d4")
    [found] = find_aligned(Store(str(run)), [BASE, control])
    assert (found.control, found.target_side, found.baseline_id) == (True, "word", "small")
    assert found.preferences.height > 0


def test_a_run_without_alignment_has_nothing_of_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert (find_produced(store), find_aligned(store, [BASE]), find_descents(store, [BASE])) == ([], [], [])
    assert read_training(store) is None


def test_what_is_no_provenance_is_passed_over(run: Path) -> None:
    store = Store(str(run))
    before = find_produced(store)
    for name, text in (("cut", "{"), ("list", "[]"), ("other", '{"versions": {}}')):
        (run / "align" / name).mkdir()
        (run / "align" / name / "provenance.json").write_text(text)
    assert find_produced(store) == before
