"""How far stages are, from an experiment's folder. Of a real one, live and killed: tests/pipeline/test_align_run.py."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.align.standing import StageStanding, stage_standings
from wdct_dist.align.training_log import PROGRESS
from wdct_dist.config.align_schema import AlignConfig, TargetSide
from wdct_dist.config.load import as_plain

BEFORE, GIVEN = "2026-11-01T10:00:00.000+00:00", "2026-11-01T10:05:00.000+00:00"
AT_GIVEN = 1793527500.0
SFT, DPO = "m-word-s0/sft", "m-word-s0/dpo"

Look = Callable[..., tuple[StageStanding, StageStanding]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """SFT and DPO of one branch, with a driver that began to train at `since`."""
    config = AlignConfig(models=["m"], target_sides=[TargetSide.word], seeds=[0])

    def read(*events: Mapping[str, Any], since: str | None = BEFORE) -> tuple[StageStanding, StageStanding]:
        sft, dpo = stage_standings(tmp_path, config, ["m"], events, since=since)
        return sft, dpo

    return read


def event(name: str, title: str, *, time: str = GIVEN, **facts: Any) -> dict[str, Any]:
    return {"time": time, "event": name, "task" if name.startswith("task") else "stage": title, **facts}


def make(folder: Path, stage: str, steps: int) -> None:
    (folder / "m-word-s0" / stage).mkdir(parents=True)
    (folder / "m-word-s0" / stage / "provenance.json").write_text(json.dumps({"steps": steps}))


def write_progress(folder: Path, stage: str, *, at: float, saved: int | None = None) -> None:
    states = folder / "m-word-s0" / f"{stage}.states"
    states.mkdir(parents=True)
    (states / PROGRESS).write_text(json.dumps({"stage": f"m-word-s0/{stage}", "step": 12, "steps": 40, "loss": 0.3, "steps_per_s": 2.0}))
    os.utime(states / PROGRESS, (at, at))
    for step, is_whole in ((saved, True), (14, False)):
        if step is not None:
            (states / f"checkpoint-{step}").mkdir()
            if is_whole:
                (states / f"checkpoint-{step}" / "whole").touch()


def test_nothing_has_begun_where_there_is_nothing(look: Look) -> None:
    sft, dpo = look()
    assert (sft.state, sft.after, dpo.state, dpo.after) == ("waiting", None, "waiting", "sft")


def test_a_checkpoint_that_is_there_is_done_with_its_steps_and_the_next_stage_waits_for_nothing(look: Look, tmp_path: Path) -> None:
    make(tmp_path, "sft", 40)
    sft, dpo = look(event("stage trained", SFT, seconds=12.5))
    assert (sft.state, sft.step, sft.seconds) == ("done", 40, 12.5)
    assert (dpo.state, dpo.after) == ("waiting", None)


def test_a_stage_that_was_given_runs_once_its_process_has_told_of_a_step(look: Look, tmp_path: Path) -> None:
    assert look(event("task given", SFT))[0].state == "given"
    write_progress(tmp_path, "sft", at=AT_GIVEN + 60)
    sft, dpo = look(event("task given", SFT))
    assert (sft.state, sft.step, sft.num_steps, sft.steps_per_s, sft.loss) == ("running", 12, 40, 2.0, 0.3)
    assert (dpo.state, dpo.after) == ("waiting", "sft")


def test_what_an_earlier_process_told_is_not_taken_for_the_present_one(look: Look, tmp_path: Path) -> None:
    write_progress(tmp_path, "sft", at=AT_GIVEN - 60, saved=10)
    sft, _ = look(event("task given", SFT))
    assert (sft.state, sft.steps_per_s, sft.saved_step) == ("given", None, 10)


def test_what_was_given_before_the_driver_began_or_without_one_is_left_and_goes_on_from_its_last_whole_state(
    look: Look, tmp_path: Path
) -> None:
    write_progress(tmp_path, "sft", at=AT_GIVEN + 60, saved=10)
    for since in (None, "2026-11-01T11:00:00.000+00:00"):
        sft, dpo = look(event("task given", SFT), since=since)
        assert (sft.state, sft.step, sft.num_steps, sft.saved_step, sft.steps_per_s) == ("left", 12, 40, 10, None)
        assert dpo.state == "waiting"


def test_a_process_that_outlives_its_driver_is_running(look: Look, tmp_path: Path) -> None:
    write_progress(tmp_path, "sft", at=AT_GIVEN, saved=10)
    with (tmp_path / "m-word-s0" / ".sft.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert look(event("task given", SFT), since=None)[0].state == "running"
    assert look(event("task given", SFT), since=None)[0].state == "left"


def test_a_stage_that_failed_says_why_and_the_next_one_is_not_trained(look: Look) -> None:
    sft, dpo = look(event("task given", SFT), event("task failed", SFT, reason="out of memory"))
    assert (sft.state, sft.reason) == ("failed", "out of memory")
    assert (dpo.state, dpo.after) == ("blocked", "sft")


def test_a_stage_that_failed_and_was_given_again_is_no_longer_failed(look: Look) -> None:
    sft, _ = look(event("task failed", SFT, time=BEFORE, reason="out of memory"), event("task given", SFT))
    assert (sft.state, sft.reason) == ("given", None)


def test_a_stage_that_diverged_says_why_as_long_as_the_limits_are_those(look: Look, tmp_path: Path) -> None:
    make(tmp_path, "sft", 40)
    limits = as_plain(AlignConfig().divergence)
    note = tmp_path / "m-word-s0" / "dpo.diverged.json"
    note.write_text(json.dumps({"identity": "x", "limits": limits, "reason": "the margin fell"}))
    sft, dpo = look(event("stage diverged", DPO), since=None)
    assert (sft.state, dpo.state, dpo.reason) == ("done", "diverged", "the margin fell")
    note.write_text(json.dumps({"identity": "x", "limits": {**limits, "margin_window": 99}, "reason": "the margin fell"}))
    assert look(since=None)[1].state == "waiting"


def test_a_control_has_no_dpo(tmp_path: Path) -> None:
    config = AlignConfig(models=["m"], target_sides=[TargetSide.word, TargetSide.none], seeds=[0, 1])
    found = [f"{one.branch}/{one.stage}" for one in stage_standings(tmp_path, config, ["org/m"], [], since=None)]
    assert found == [f"org-m-word-s{seed}/{stage}" for seed in (0, 1) for stage in ("sft", "dpo")] + [
        f"org-m-none-s{seed}/sft" for seed in (0, 1)
    ]
