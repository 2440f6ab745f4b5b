"""What of a run goes to a tracker."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import polars as pl
import pytest

from wdct_dist.cli.main import main
from wdct_dist.config.schema import Config
from wdct_dist.reporting import findings
from wdct_dist.tables.run_dir import existing_run
from wdct_dist.tracking.tracked_run import Metric, metrics_of, params_of, refusal, tracked_run, without_passwords, write_files


def summary(*rows: tuple[str, str, str, str, str, float | None]) -> pl.DataFrame:
    columns = ("checkpoint_id", "variant", "language", "domain", "metric", "value")
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.with_columns(ci_low=pl.lit(0.25), ci_high=pl.lit(0.75))


def test_a_figure_is_named_after_its_place_and_only_scores_have_their_ends_beside_them() -> None:
    frame = summary(("org/m@1", "direct", "en", "all", "cs", 0.5), ("org/m@1", "direct", "en", "all", "tie_rate", 0.0))
    assert metrics_of(frame) == [
        Metric("cs/org-m-1/direct/all", 0.5, None),
        Metric("cs_low/org-m-1/direct/all", 0.25, None),
        Metric("cs_high/org-m-1/direct/all", 0.75, None),
        Metric("tie_rate/org-m-1/direct/all", 0.0, None),
    ]


def test_steps_of_a_training_share_a_name_and_the_checkpoint_that_bears_it_is_where_it_began() -> None:
    frame = summary(*((name, "direct", "en", "all", "label_mass", 0.5) for name in ("run-10", "run-9", "run", "other")))
    assert metrics_of(frame) == [
        Metric("label_mass/run/direct/all", 0.5, 10),
        Metric("label_mass/run/direct/all", 0.5, 9),
        Metric("label_mass/run/direct/all", 0.5, 0),
        Metric("label_mass/other/direct/all", 0.5, None),
    ]


def test_names_stay_apart_and_are_short_enough_for_any_tracker() -> None:
    checkpoints = ("org/one", "org-one", "模型", "x" * 300)
    frame = summary(*((name, "v" * 300, language, "d" * 300, "trial_agreement", 0.5) for name in checkpoints for language in ("en", "zh")))
    names = [one.name for one in metrics_of(frame)]
    assert len(set(names)) == len(names) == 8
    assert max(map(len, names)) <= 250


def test_a_figure_that_is_not_defined_is_no_metric() -> None:
    assert (
        metrics_of(summary(("a", "direct", "en", "all", "label_mass", None), ("a", "direct", "en", "all", "pcs_debiased", float("nan"))))
        == []
    )


def test_every_setting_is_a_parameter() -> None:
    found = params_of(Config(checkpoints=[{"path": "s3://KEY:SECRET@bucket/model", "id": "a"}]))
    assert found["engine.scripted.spread"] == "2.0"
    assert found["data.languages"] == '["en"]'
    assert found["engine.max_model_len"] == "null"
    assert found["checkpoints"] == '[{"path": "s3://bucket/model", "id": "a"}]'
    assert {key.partition(".")[0] for key in found} == {entry.name for entry in dataclasses.fields(Config)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s3://KEY:SECRET@bucket/run?region=x", "s3://bucket/run?region=x"),
        ("http://user:pw@host:5000", "http://host:5000"),
        ("org/model@main https://host/a@b", "org/model@main https://host/a@b"),
    ],
)
def test_keys_in_addresses_are_left_out(text: str, left: str) -> None:
    assert without_passwords(text) == left


def test_a_run_is_the_same_wherever_it_lies_and_says_how_far_it_is(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    here, there = (tracked_run(store, findings(store), None) for store in map(existing_run, (str(run), str(moved))))
    assert here.run_id == there.run_id
    assert here.finished
    assert here.facts["state"] == "complete"
    assert (here.name, there.name) == ("run", "elsewhere")
    assert len(here.tables["items"].rows) == 6 * 3 * 3 * 2  # checkpoints, items, ways, languages
    store = existing_run(str(moved))
    unfinished = tracked_run(store, findings(store), "not finished: 1 of 2")
    assert not unfinished.finished
    assert unfinished.facts["state"] == "not finished: 1 of 2"


def test_files_are_the_run_s_but_for_keys_in_them(run: Path, tmp_path: Path) -> None:
    write_files(existing_run(str(run)), tmp_path)
    assert (tmp_path / "report.html").read_text() == "<p>run s3://bucket/run"
    for name in ("scores/summary.arrow", "scores/summary.csv", "scores/items.arrow", "config.yaml"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()
    assert not (tmp_path / "answers").exists()


def test_a_tracker_that_is_not_installed_is_named_with_what_mends_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # a folder of that name, such as W&B leaves, is not the package
    (tmp_path / "mlflow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    if importlib.util.find_spec("mlflow").origin is not None:
        pytest.skip("MLflow is installed here")
    assert main(["track", str(run), "--to", "mlflow"]) == 2
    assert "MLflow needs the package mlflow, which is not installed: `pip install 'wdct_dist[mlflow]'`." in capsys.readouterr().err


def test_a_refusal_is_one_line_without_keys() -> None:
    error = refusal("MLflow at http://me:pw@host", ValueError(f"first http://me:pw@host\nsecond {'x' * 1000}"))
    assert error.exit_code == 1
    assert str(error).startswith("MLflow at http://host did not take the run (first http://host second xxx")
    assert str(error).endswith(" …); the run directory is as it was.")
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tracking.mlflow=http://me:secret@host", "without user or password"),
        ("tracking.wandb=a/b/c", "entity/project"),
    ],
)
def test_settings_that_cannot_be_are_refused(override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("checkpoints: [a]\nengine: {kind: scripted}\n")
    assert main(["plan", str(tmp_path / "c.yaml"), override]) == 2
    assert words in capsys.readouterr().err
