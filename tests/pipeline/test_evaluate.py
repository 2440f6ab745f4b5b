"""Whole evaluations with the scripted engine: what is on disk afterwards, and what a second call does."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.cli.main import main
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.scripted import ScriptedEngine
from wdct_dist.pipeline import different
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables import schema

CONFIG = """
run_dir: {run}
data: {{limit: 24}}
checkpoints: [alpha, beta]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{executor: local, shard_size: 16}}
metrics: {{bootstrap_resamples: 50}}
"""
KEYS = ["checkpoint_id", "prompt_id", "trial"]


class Run:
    """A configuration and its run directory."""

    def __init__(self, folder: Path, name: str = "run") -> None:
        self.folder = folder / name
        self.config = folder / f"{name}.yaml"
        self.config.write_text(CONFIG.format(run=self.folder))

    def evaluate(self, *overrides: str) -> int:
        return main(["evaluate", str(self.config), *overrides])

    def answers(self) -> pl.DataFrame:
        return pl.scan_ipc(str(self.folder / "answers" / "*.arrow")).collect().sort(KEYS)

    def shards(self) -> list[Path]:
        return sorted((self.folder / "answers").glob("*.arrow"))

    def events(self, name: str) -> list[dict[str, object]]:
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def loaded(self) -> list[object]:
        """The checkpoints that engines took, at their start or later, in order."""
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [event["checkpoint"] for event in map(json.loads, lines) if event["event"] in ("engine started", "engine swapped")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    # what a run measures is kept for forecasts, and not in the user's own cache
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    return Run(tmp_path)


def test_every_prompt_of_the_plan_has_one_row(run: Run) -> None:
    assert run.evaluate("trials=2") == 0
    prompts = pl.read_ipc(run.folder / "prompts.arrow")["prompt_id"]
    answers = run.answers()
    assert answers.height == 2 * 2 * prompts.len()
    assert answers.select(KEYS).is_unique().all()
    assert set(answers["prompt_id"]) == set(prompts)
    assert answers["error"].null_count() == answers.height


def test_the_tables_have_the_columns_of_the_contract(run: Run) -> None:
    assert run.evaluate() == 0
    for name, wanted in {
        "items.arrow": schema.ITEMS,
        "prompts.arrow": schema.PROMPTS,
        "scores/items.arrow": schema.SCORES_ITEMS,
        "scores/summary.arrow": schema.SCORES_SUMMARY,
    }.items():
        assert pa.ipc.open_file(str(run.folder / name)).schema.equals(wanted)
    assert pa.ipc.open_file(str(run.shards()[0])).schema.equals(schema.ANSWERS)
    assert (run.folder / "scores" / "summary.csv").read_text().startswith("checkpoint_id,variant,language,domain,metric,value")


def test_a_figure_of_the_summary_is_recomputed_with_three_lines_of_polars(run: Run) -> None:
    assert run.evaluate() == 0
    items = pl.scan_ipc(str(run.folder / "scores" / "items.arrow"))
    again = items.group_by("checkpoint_id").agg(pl.col("match").mean()).collect().sort("checkpoint_id")
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow")
    stated = summary.filter(pl.col("metric") == "cs", pl.col("domain") == "all").sort("checkpoint_id")
    assert again["match"].to_list() == pytest.approx(stated["value"].to_list(), abs=1e-12)


def test_the_provenance_says_what_was_run(run: Run) -> None:
    assert run.evaluate() == 0
    record = json.loads((run.folder / "provenance.json").read_text())
    assert [one["checkpoint_id"] for one in record["checkpoints"]] == ["alpha", "beta"]
    assert record["seeds"]["order_seed"] == 0
    assert len(record["data"]["sha256"]) == 64
    session = record["sessions"][0]
    assert {"wdct_dist", "polars", "pyarrow", "python"} <= set(session["versions"])
    assert session["start"] <= session["end"]
    assert "prompts done" in session["ended"]


def test_a_second_call_asks_nothing_again(run: Run) -> None:
    assert run.evaluate() == 0
    before = {path: path.stat().st_mtime_ns for path in run.shards()}
    assert run.evaluate() == 0
    assert {path: path.stat().st_mtime_ns for path in run.shards()} == before
    assert len(run.loaded()) == 2


def test_the_answers_do_not_depend_on_the_sharding(tmp_path: Path) -> None:
    one, other = Run(tmp_path, "one"), Run(tmp_path, "other")
    assert one.evaluate() == 0
    assert other.evaluate("dispatch.shard_size=7") == 0
    assert one.answers().equals(other.answers())


def test_a_checkpoint_added_later_is_all_that_is_run(run: Run) -> None:
    assert run.evaluate() == 0
    assert run.evaluate("checkpoints=[alpha,beta,gamma]") == 0
    assert run.loaded() == ["alpha", "beta", "gamma"]
    assert run.answers()["checkpoint_id"].unique().sort().to_list() == ["alpha", "beta", "gamma"]
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow")
    assert summary["checkpoint_id"].unique().sort().to_list() == ["alpha", "beta", "gamma"]


def damage(name: str, run: Run) -> Path:
    """Damages one shard, or the manifest's word on it; returns the shard that has to be done again."""
    shard = random.Random(name).choice(run.shards())
    manifest = run.folder / "manifest.json"
    data = bytearray(shard.read_bytes())
    match name:
        case "truncated":
            shard.write_bytes(data[: len(data) // 2])
        case "empty":
            shard.write_bytes(b"")
        case "bit flipped":
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
        case "deleted":
            shard.unlink()
        case "lying manifest":
            listed = json.loads(manifest.read_text())
            entry = next(entry for entry in listed["shards"] if entry["name"].endswith(shard.name))
            entry["sha256"] = "0" * 64
            manifest.write_text(json.dumps(listed))
        case "truncated, no manifest":
            manifest.unlink()
            shard.write_bytes(data[: len(data) // 2])
    return shard


@pytest.mark.parametrize("name", ["truncated", "empty", "bit flipped", "deleted", "lying manifest", "truncated, no manifest"])
def test_a_damaged_shard_is_noticed_and_done_again(name: str, run: Run, tmp_path: Path) -> None:
    assert run.evaluate() == 0
    whole = run.answers()
    shard = damage(name, run)
    assert run.evaluate() == 0
    assert run.answers().equals(whole)
    assert len(run.loaded()) == 3
    again = [event["shard"] for event in run.events("unit done")][-1]
    assert again == f"answers/{shard.name}"


def test_a_manifest_that_is_gone_is_rebuilt_without_running_anything(run: Run) -> None:
    assert run.evaluate() == 0
    manifest = run.folder / "manifest.json"
    before = manifest.read_text()
    manifest.unlink()
    assert run.evaluate() == 0
    assert manifest.read_text() == before
    assert len(run.loaded()) == 2


@pytest.mark.parametrize("name", ["prompts.arrow", "items.arrow", "scores/summary.arrow"])
def test_a_table_that_is_gone_is_made_again(name: str, run: Run) -> None:
    assert run.evaluate() == 0
    before = (run.folder / name).read_bytes()
    (run.folder / name).unlink()
    assert run.evaluate() == 0
    assert (run.folder / name).read_bytes() == before
    assert len(run.loaded()) == 2


def test_a_prompt_that_cannot_be_answered_is_a_row_with_the_reason(run: Run) -> None:
    items = [json.loads(line) for line in (Path(__file__).parents[2] / "wdct_dist/items/data/bundled.jsonl").read_text().splitlines()]
    bad = items[3]["word"]["question"]
    assert run.evaluate(f"engine.scripted.error_on={json.dumps(bad)}") == 0
    answers = run.answers()
    assert answers.filter(pl.col("error").is_not_null()).height == 2 * len(items[3]["word"]["options"])
    assert answers.filter(pl.col("error").is_not_null())["option_logprobs"].null_count() == 2 * len(items[3]["word"]["options"])
    scores = pl.read_ipc(run.folder / "scores" / "items.arrow")
    assert scores.filter(pl.col("item_id") == items[3]["item_id"])["match"].null_count() == 2


def test_a_checkpoint_that_does_not_start_fails_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate("engine.scripted.fail_start=beta") == 3
    assert run.answers()["checkpoint_id"].unique().to_list() == ["alpha"]
    assert "checkpoint beta failed" in capsys.readouterr().err
    assert run.evaluate() == 0
    assert run.answers()["checkpoint_id"].unique().sort().to_list() == ["alpha", "beta"]


def test_when_no_checkpoint_starts_the_run_has_failed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate("engine.scripted.fail_start=a") == 1
    assert "no engine answered anything" in capsys.readouterr().err


def test_a_checkpoint_goes_by_the_id_that_it_was_given(run: Run) -> None:
    assert run.evaluate("checkpoints=[{path: alpha, id: one}]") == 0
    assert run.answers()["checkpoint_id"].unique().to_list() == ["one"]


def test_two_names_for_the_same_weights_are_evaluated_once(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = scripted_checkpoint("one"), scripted_checkpoint("other")
    twin = replace(one, checkpoint_id="twin")
    assert different([one, other, twin]) == [one, other]
    assert "checkpoint twin is one under another name" in capsys.readouterr().err


def test_two_names_for_the_same_weights_are_reported_under_both(run: Run) -> None:
    assert run.evaluate("checkpoints=[alpha]") == 0
    file = run.folder / "provenance.json"
    record = json.loads(file.read_text())
    record["checkpoints"].append({**record["checkpoints"][0], "checkpoint_id": "twin"})
    file.write_text(json.dumps(record))
    assert main(["score", str(run.folder)]) == 0
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow")
    alpha, twin = (summary.filter(pl.col("checkpoint_id") == name).drop("checkpoint_id") for name in ("alpha", "twin"))
    assert alpha.height > 0
    assert alpha.equals(twin)


def test_suspicious_items_are_evaluated_and_flagged(tmp_path: Path) -> None:
    items = [
        {
            "item_id": f"item-{number}",
            "domain": "Opinion",
            "word": {"question": f"Question {number}?", "options": ["Yes.", "Yes." if number == 1 else "No."]},
            "deed": {"question": f"What do you do in case {number}?", "options": ["This.", "That."]},
        }
        for number in range(3)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    run = Run(tmp_path)
    assert run.evaluate(f"data.path={tmp_path / 'items.jsonl'}") == 0
    scores = pl.read_ipc(run.folder / "scores" / "items.arrow")
    assert scores.filter(pl.col("flags").list.len() > 0)["item_id"].unique().to_list() == ["item-1"]


def test_bad_items_are_dropped_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"domain": "Opinion", "word": {"question": "Cats?", "options": ["Yes.", "No."]}}
    items = [
        {**good, "item_id": "good", "deed": {"question": "Adopt one?", "options": ["Yes.", "No."]}},
        {**good, "item_id": "bad", "deed": {"question": "Adopt one of them?", "options": ["Yes."]}},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    run = Run(tmp_path)
    assert run.evaluate(f"data.path={tmp_path / 'items.jsonl'}") == 2
    assert "data.on_bad_item: drop" in capsys.readouterr().err
    assert run.evaluate(f"data.path={tmp_path / 'items.jsonl'}", "data.on_bad_item=drop") == 0
    assert json.loads((run.folder / "provenance.json").read_text())["data"]["dropped"] == ["bad"]


@pytest.mark.parametrize("command", ["score", "report", "status"])
def test_a_finished_run_can_be_read_again(command: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate() == 0
    assert main([command, str(run.folder)]) == 0
    assert str(run.folder) in capsys.readouterr().out


def test_a_report_of_answers_that_came_since_is_derived_anew_and_says_what_is_missing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate("checkpoints=[alpha]") == 0
    scores = {path: path.read_bytes() for path in (run.folder / "scores").iterdir()}
    assert run.evaluate() == 0
    for path, before in scores.items():  # as if the second session had been killed before it scored
        path.write_bytes(before)
        os.utime(path, ns=(0, 0))
    run.shards()[-1].unlink()
    capsys.readouterr()
    assert main(["report", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "beta" in said
    assert "not finished: " in said
    written = (run.folder / "scores" / "summary.arrow").stat().st_mtime_ns
    assert main(["report", str(run.folder)]) == 0
    assert (run.folder / "scores" / "summary.arrow").stat().st_mtime_ns == written


def test_a_checkpoint_that_fails_keeps_the_others_from_neither_their_repeats_nor_their_scores(run: Run) -> None:
    assert run.evaluate("metrics.noise_repeats=1", "engine.scripted.fail_start=beta") == 3
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow")
    assert summary["checkpoint_id"].unique().to_list() == ["alpha"]
    assert pl.read_ipc(run.folder / "scores" / "noise.arrow")["checkpoint_id"].unique().to_list() == ["alpha"]


def test_rows_that_stand_in_two_shards_are_scored_and_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, late = Run(tmp_path), Run(tmp_path, "late")
    assert run.evaluate() == 0
    assert late.evaluate("dispatch.shard_size=8", "engine.scripted.bias=first") == 0
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow")
    for name in (late.shards()[0].name, late.shards()[1].name):
        # as an engine that was given up writes it, while others did the unit in other parts
        shutil.copy(late.folder / "answers" / name, run.folder / "answers")
    capsys.readouterr()
    assert main(["score", str(run.folder)]) == 0
    assert pl.read_ipc(run.folder / "scores" / "summary.arrow").equals(summary)
    assert main(["status", str(run.folder)]) == 0
    assert "alpha: 112 of 112 prompts" in capsys.readouterr().out


def test_a_signal_in_the_last_unit_ends_with_3_since_nothing_is_scored(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("checkpoints=[alpha]", "dispatch.shard_size=1000")
    answer = ScriptedEngine.answer

    def answer_interrupted(engine: ScriptedEngine, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        os.kill(os.getpid(), signal.SIGINT)
        return answer(engine, prompts, trial)

    monkeypatch.setattr(ScriptedEngine, "answer", answer_interrupted)
    assert run.evaluate(*overrides) == 3
    assert run.answers().height == 112, "the unit in flight was finished"
    assert not (run.folder / "scores" / "summary.arrow").exists()
    assert "stopped by SIGINT; what is done is safe, the same command goes on from here" in capsys.readouterr().err
    assert run.evaluate(*overrides) == 0
    assert (run.folder / "scores" / "summary.arrow").exists()


def test_a_session_that_is_refused_leaves_what_the_run_says_of_itself(tmp_path: Path) -> None:
    run, items = Run(tmp_path), tmp_path / "items.jsonl"
    write_items(items, "cats")
    assert run.evaluate(f"data.path={items}") == 0
    before = json.loads((run.folder / "provenance.json").read_text())
    write_items(items, "dogs")
    assert run.evaluate(f"data.path={items}", "checkpoints=[gamma]") == 2
    record = json.loads((run.folder / "provenance.json").read_text())
    assert {key: record[key] for key in ("data", "checkpoints", "seeds")} == {key: before[key] for key in ("data", "checkpoints", "seeds")}
    assert "have changed since it began" in record["sessions"][-1]["ended"]


def test_answers_to_other_prompts_are_not_taken_for_those_of_the_run_even_where_its_provenance_is_gone(tmp_path: Path) -> None:
    run, items = Run(tmp_path), tmp_path / "items.jsonl"
    write_items(items, "cats")
    assert run.evaluate(f"data.path={items}") == 0
    write_items(items, "dogs")
    (run.folder / "provenance.json").unlink()
    assert run.evaluate(f"data.path={items}") == 0
    assert set(run.answers()["prompt_id"]) == set(pl.read_ipc(run.folder / "prompts.arrow")["prompt_id"])
    assert {event["reason"] for event in run.events("shard damaged")} == {"it answers other prompts than the run has now"}


def write_items(file: Path, animals: str) -> None:
    """One item on these animals."""
    sides = {"word": f"Do you like {animals}?", "deed": f"Do you adopt {animals}?"}
    item = {side: {"question": question, "options": ["Yes.", "No."]} for side, question in sides.items()}
    file.write_text(json.dumps({"item_id": "one", "domain": "Opinion", **item}) + "\n")


def test_plan_counts_what_evaluate_then_does(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(run.config)]) == 0
    said = capsys.readouterr().out
    assert not run.folder.exists()
    assert run.evaluate() == 0
    assert f"{run.answers().height} prompts over 2 checkpoint(s)" in said
    assert f"in {len(run.shards())} shards" in said


def test_two_drivers_in_one_run_directory_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from wdct_dist.tables.run_dir import locked
    from wdct_dist.tables.storage import Store

    assert run.evaluate() == 0
    with locked(Store(str(run.folder))):
        assert run.evaluate() == 2
        assert main(["status", str(run.folder)]) == 0
    captured = capsys.readouterr()
    assert "in use by another" in captured.err
    assert "running" in captured.out
