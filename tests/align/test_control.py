from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl

from wdct_dist.align.control import BUNDLED, DOMAIN, control_items
from wdct_dist.cli.main import main
from wdct_dist.items.load import read_records
from wdct_dist.items.validate import audit


def test_there_are_enough_sound_control_questions_whose_right_answers_stand_in_every_place() -> None:
    report = audit(read_records(BUNDLED), [DOMAIN])
    items = control_items()
    assert report.problems == ()
    assert len(items) == report.num_items >= 40
    assert {item.num_options for item in items} == {4}
    places = Counter(item.correct_option for item in items)
    assert places.keys() == {0, 1, 2, 3}
    assert max(places.values()) - min(places.values()) <= 1
    assert len({question.question for item in items for question in item.questions.values()}) == 2 * len(items)


def test_they_are_evaluated_as_any_items_are(tmp_path: Path) -> None:
    config = {
        "run_dir": str(tmp_path / "run"),
        "checkpoints": ["m"],
        "data": {"path": str(BUNDLED), "extra_domains": [DOMAIN]},
        "engine": {"kind": "scripted"},
        "dispatch": {"executor": "local"},
        "report": {"html": False},
        "metrics": {"bootstrap_resamples": 0},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert main(["evaluate", str(tmp_path / "c.yaml")]) == 0
    summary = pl.read_ipc(tmp_path / "run" / "scores" / "summary.arrow")
    accuracy = summary.filter(metric="accuracy_word", domain="all")
    assert accuracy["n"].item() == len(control_items())
