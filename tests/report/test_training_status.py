"""`wdct status` of an alignment experiment: what it says of the training. What stands behind it: tests/align/test_standing.py."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.align.standing import StageStanding
from wdct_dist.config.align_schema import AlignConfig, TargetSide
from wdct_dist.config.load import as_plain, load_config, to_yaml
from wdct_dist.errors import RunDirError
from wdct_dist.pipeline import evaluate
from wdct_dist.report.status import status_text, unfinished_text
from wdct_dist.report.training_status import stage_text
from wdct_dist.tables.events import EventLog
from wdct_dist.tables.run_dir import read_config, read_provenance
from wdct_dist.tables.storage import Store


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"state": "done", "step": 1200, "seconds": 75.4}, "done, 1,200 steps in 0:01:15"),
        ({"state": "done", "step": 40}, "done, 40 steps"),
        (
            {"state": "running", "step": 10, "num_steps": 40, "steps_per_s": 0.25, "loss": 0.6912},
            "running, step 10 of 40 (25 %), 4.0 s a step, 0:02:00 left, loss 0.691",
        ),
        (
            {"state": "running", "step": 10, "num_steps": 40, "steps_per_s": 2.5},
            "running, step 10 of 40 (25 %), 2.50 steps/s, 0:00:12 left",
        ),
        ({"state": "running"}, "running, no step yet"),
        ({"state": "given", "saved_step": 8}, "given to the cluster, no step yet; goes on from step 8"),
        ({"state": "left", "step": 12, "num_steps": 40, "saved_step": 10}, "not over, it was at step 12 of 40; goes on from step 10"),
        ({"state": "left"}, "not over; nothing is saved, it begins anew"),
        ({"state": "failed", "reason": "out of memory"}, "failed: out of memory"),
        ({"state": "diverged", "reason": "the loss is nan"}, "stopped, it diverged: the loss is nan"),
        ({"state": "waiting", "after": "sft"}, "waits for sft"),
        ({"state": "waiting"}, "waits"),
        ({"state": "blocked", "after": "sft"}, "not trained, since there is no sft"),
    ],
)
def test_a_stage_is_told_in_a_line(facts: dict[str, Any], said: str) -> None:
    assert stage_text(StageStanding("m-word-s0", "sft", **facts)) == said


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run whose baseline is evaluated, and whose training was planned: one branch, on words."""
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "c.yaml"
    file.write_text(
        f"run_dir: {tmp_path / 'run'}\ndata: {{limit: 12}}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\n"
        "dispatch: {executor: local}\nmetrics: {bootstrap_resamples: 0}\n"
    )
    store = evaluate(load_config(file, [])).store
    (tmp_path / "run" / "align").mkdir()
    (tmp_path / "run" / "align" / ".lock").touch()
    config = AlignConfig(run_dir=str(tmp_path / "run"), models=["demo"], target_sides=[TargetSide.word])
    store.write("align/config.yaml", to_yaml(config).encode())
    return store


@pytest.fixture
def hold(baseline: Store) -> Iterator[Callable[[str], None]]:
    """Holds a lock of the run, as whoever works in it does."""
    assert baseline.local is not None
    root = baseline.local
    with ExitStack() as held:

        def lock(name: str) -> None:
            fcntl.flock(held.enter_context((root / name).open("a")), fcntl.LOCK_EX)

        yield lock


def make(store: Store, stage: str) -> None:
    assert store.local is not None
    folder = store.local / "align" / "demo-word-s0" / stage
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps({"steps": 7}))


def evaluate_also(store: Store, *names: str) -> None:
    """Has provenance.json name further checkpoints, with the baseline's answers."""
    record = read_provenance(store)
    record["checkpoints"] += [{**record["checkpoints"][0], "checkpoint_id": name} for name in names]
    store.write("provenance.json", json.dumps(record).encode())


def test_a_live_experiment_says_whether_it_trains_or_asks_and_how_far_each_stage_is(baseline: Store, hold: Callable[[str], None]) -> None:
    EventLog(baseline).add("task given", task="demo-word-s0/sft", attempt=1)
    hold("align/.lock")
    lines = status_text(baseline).splitlines()
    assert lines[0].endswith("/run: running, training")
    at = lines.index("  training:")
    assert lines[at + 1 : at + 3] == ["    demo-word-s0/sft: given to the cluster, no step yet", "    demo-word-s0/dpo: waits for sft"]
    hold(".lock")
    assert status_text(baseline).splitlines()[0].endswith("/run: running, evaluation")


def test_an_experiment_that_was_killed_while_it_trained_is_not_complete_though_all_that_was_asked_is_answered(baseline: Store) -> None:
    EventLog(baseline).add("task given", task="demo-word-s0/sft", attempt=1)
    lines = status_text(baseline).splitlines()
    assert lines[0].endswith("/run: not running, incomplete; the same `wdct align` goes on from here")
    assert "    demo-word-s0/sft: not over; nothing is saved, it begins anew" in lines


def test_it_is_complete_once_all_that_was_trained_is_evaluated(baseline: Store) -> None:
    make(baseline, "sft")
    make(baseline, "dpo")
    evaluate_also(baseline, "demo-word-s0/sft")
    assert "incomplete; the same `wdct align`" in status_text(baseline)
    evaluate_also(baseline, "demo-word-s0/dpo")
    assert status_text(baseline).splitlines()[0].endswith("/run: complete")


def test_an_experiment_that_is_over_but_for_what_diverged_says_how_much_did(baseline: Store) -> None:
    make(baseline, "sft")
    evaluate_also(baseline, "demo-word-s0/sft")
    assert "incomplete; the same `wdct align`" in status_text(baseline)
    note = {"limits": as_plain(AlignConfig().divergence), "reason": "the margin fell"}
    baseline.write("align/demo-word-s0/dpo.diverged.json", json.dumps(note).encode())
    lines = status_text(baseline).splitlines()
    assert lines[0].endswith("/run: ended; 1 of 2 stages diverged")
    assert "    demo-word-s0/dpo: stopped, it diverged: the margin fell" in lines


def test_what_is_missing_of_an_experiment_is_finished_by_wdct_align(baseline: Store) -> None:
    baseline.delete(baseline.names("answers")[0])
    said = unfinished_text(baseline, read_config(baseline), read_provenance(baseline))
    assert said is not None
    assert said.endswith("`wdct align` goes on from here")


def test_a_configuration_that_cannot_be_read_is_named(baseline: Store) -> None:
    baseline.write("align/config.yaml", b"models: {")
    with pytest.raises(RunDirError, match=r"/run: its align/config.yaml is not readable \(.*\); restore it"):
        status_text(baseline)
