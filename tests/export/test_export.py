"""Runs in the log formats of other evaluators: what is in the files is what is in the run's tables."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.cli.main import main
from wdct_dist.prompts.types import ANSWER_SLOT

WAY = ["checkpoint_id", "variant", "language"]


@pytest.fixture(scope="module")
def scores(run: Path) -> pl.DataFrame:
    return pl.read_ipc(run / "scores" / "items.arrow")


@pytest.fixture(scope="module")
def summary(run: Path) -> pl.DataFrame:
    return pl.read_ipc(run / "scores" / "summary.arrow")


@pytest.fixture(scope="module")
def logs(inspect_logs: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Every file of each Inspect log, by checkpoint, variant and language."""
    found = {}
    for path in inspect_logs.iterdir():
        with zipfile.ZipFile(path) as log:
            files = {name: json.loads(log.read(name)) for name in log.namelist()}
        spec = files["header.json"]["eval"]
        found[spec["model"], spec["task"].removeprefix("wdct/"), spec["task_args"]["language"]] = files
    return found


def test_every_way_of_asking_is_a_log_whatever_its_name(inspect_logs: Path, logs: Any, scores: pl.DataFrame) -> None:
    ways = set(scores.select(WAY).unique().iter_rows())
    assert len(list(inspect_logs.iterdir())) == len(ways) == 3 * 5 * 2
    assert set(logs) == ways


def test_samples_have_the_scores_of_their_items(logs: Any, scores: pl.DataFrame) -> None:
    for way, rows in scores.group_by(WAY):
        files = logs[way]
        assert len([name for name in files if name.startswith("samples/")]) == len(files["summaries.json"]) == rows.height
        for row in rows.iter_rows(named=True):
            sample = files[f"samples/{row['item_id']}_epoch_{row['trial'] + 1}.json"]
            assert sample["scores"]["cs"]["value"] == row["match"]
            assert sample["scores"]["pcs"]["value"] == row["pcs"]
            assert sample["metadata"]["domain"] == row["domain"]


def test_results_have_the_figures_of_the_summary(logs: Any, summary: pl.DataFrame) -> None:
    for way, files in logs.items():
        figures = {one["name"]: one["metrics"] for one in files["header.json"]["results"]["scores"]}
        rows = summary.filter(**dict(zip(WAY, way, strict=True))).drop_nulls("value")
        assert {name for name, metrics in figures.items()} == set(rows["metric"])
        for row in rows.iter_rows(named=True):
            assert figures[row["metric"]][row["domain"]]["value"] == row["value"]
            if row["ci_low"] is not None:
                assert figures[row["metric"]][f"{row['domain']} high"]["value"] == row["ci_high"]


def test_a_sample_has_all_that_was_asked_and_said_in_its_language(logs: Any, run: Path) -> None:
    answers = pl.concat([pl.read_ipc(path) for path in (run / "answers").glob("*.arrow")])
    said = {(row["checkpoint_id"], row["prompt_id"], row["trial"]): row for row in answers.iter_rows(named=True)}
    prompts = {row["prompt_id"]: row for row in pl.read_ipc(run / "prompts.arrow").iter_rows(named=True)}
    asked = []
    for (checkpoint_id, variant, language), files in logs.items():
        for name, sample in files.items():
            if not name.startswith("samples/"):
                continue
            contents = [message["content"] for message in sample["messages"]]
            assert ANSWER_SLOT not in contents
            for prompt in sample["metadata"]["prompts"]:
                asked.append((checkpoint_id, prompt["prompt_id"], sample["epoch"] - 1))
                answer, sent = said[asked[-1]], prompts[prompt["prompt_id"]]
                assert (sent["variant"], sent["language"], sent["item_id"]) == (variant, language, sample["id"])
                assert prompt["option_logprobs"] == answer["option_logprobs"]
                text = {"type": "text", "text": answer["text"]}
                reasoned = [{"type": "reasoning", "reasoning": answer["reasoning"]}, text]
                assert (answer["text"] if answer["reasoning"] is None else reasoned) in contents
                assert sent["messages"][0]["content"] in contents
                if answer["said"] is not None:
                    assert answer["said"] in contents
    assert sorted(asked) == sorted(said)
    assert any("\u4e00" <= sign <= "\u9fff" for sign in logs["org/one", "direct", "zh"]["summaries.json"][0]["input"])


def test_lm_eval_results_and_samples_are_those_of_the_run(lm_eval_logs: Path, scores: pl.DataFrame, summary: pl.DataFrame) -> None:
    folders = {json.loads(next(folder.glob("results_*.json")).read_text())["model_name"]: folder for folder in lm_eval_logs.iterdir()}
    assert set(folders) == set(scores["checkpoint_id"])
    for checkpoint_id, folder in folders.items():
        results = json.loads(next(folder.glob("results_*.json")).read_text())
        own = scores.filter(checkpoint_id=checkpoint_id)
        assert len(results["results"]) == own.select("variant", "language").n_unique()
        for task, settings in results["configs"].items():
            way = settings["metadata"] | {"checkpoint_id": checkpoint_id}
            [cs] = summary.filter(**way, domain="all", metric="cs").iter_rows(named=True)
            assert results["results"][task]["cs,none"] == cs["value"]
            assert results["results"][task]["cs_low,none"] == cs["ci_low"]
            [path] = folder.glob(f"samples_{task}_*.jsonl")
            samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            rows = own.filter(variant=way["variant"], language=way["language"])
            found = {(one["doc"]["item_id"], one["trial"]): (one["cs"], one["pcs"]) for one in samples}
            assert found == {(row["item_id"], row["trial"]): (row["match"], row["pcs"]) for row in rows.iter_rows(named=True)}
            for one in samples:
                assert len(one["arguments"]) == len(one["resps"]) == len(one["option_logprobs"]) > 0
        assert results["n-samples"][task]["original"] == 5


def test_exporting_again_replaces_what_is_there(run: Path, lm_eval_logs: Path) -> None:
    before = {path: path.read_bytes() for path in lm_eval_logs.rglob("*.json*")}
    assert main(["export", str(run), str(lm_eval_logs), "--format", "lm-eval"]) == 0
    assert {path: path.read_bytes() for path in lm_eval_logs.rglob("*.json*")} == before


def test_a_run_that_is_not_finished_is_no_success(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "run")
    next((tmp_path / "run" / "answers").glob("*.arrow")).unlink()
    assert main(["score", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "logs"), "--format", "inspect"]) == 0
    assert "not finished" in capsys.readouterr().err.lower()
    for path in (tmp_path / "logs").iterdir():
        assert json.loads(zipfile.ZipFile(path).read("header.json"))["status"] == "cancelled"


def test_a_folder_that_cannot_be_written_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["export", str(run), str(tmp_path / "file" / "logs"), "--format", "inspect"]) == 2
    assert f"{tmp_path}/file/logs: the logs cannot be written there" in capsys.readouterr().err
