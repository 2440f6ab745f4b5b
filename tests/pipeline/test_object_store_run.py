"""Whole evaluations whose run directory is in a bucket of a real S3 server, over HTTP."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.cli.main import main
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.scripted import ScriptedEngine
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.events import EventLog, read_events
from wdct_dist.tables.storage import Store

CONFIG = """
run_dir: {run}
data: {{limit: 8}}
checkpoints: [alpha, beta]
engine: {{kind: scripted}}
dispatch: {{executor: local, shard_size: 8}}
metrics: {{bootstrap_resamples: 10}}
"""
KEYS = ["checkpoint_id", "prompt_id", "trial"]


class Run:
    """A configuration, whose run directory is in a bucket, and the folder in which its commands are given."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.uri = uri
        self.folder = folder
        self.config = folder / "bucket.yaml"
        self.config.write_text(CONFIG.format(run=uri))

    def evaluate(self, *overrides: str) -> int:
        return main(["evaluate", str(self.config), *overrides])

    @property
    def store(self) -> Store:
        return Store(self.uri)

    def answers(self) -> pl.DataFrame:
        tables = [read_table(self.store, name) for name in self.store.names("answers")]
        return pl.DataFrame(pa.concat_tables(table.replace_schema_metadata(None) for table in tables)).sort(KEYS)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.store) if event["event"] == name]


@pytest.fixture
def run(s3_server: Any, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, s3_server.uri(f"{s3_bucket}/some/run"))


def test_a_run_in_a_bucket_is_the_run_of_a_directory(run: Run, tmp_path: Path) -> None:
    assert run.evaluate("trials=2", "metrics.noise_repeats=1") == 0
    assert run.evaluate("trials=2", "metrics.noise_repeats=1", f"run_dir={tmp_path / 'here'}") == 0
    here = Store(str(tmp_path / "here"))
    assert run.answers().equals(pl.scan_ipc(str(tmp_path / "here" / "answers" / "*.arrow")).collect().sort(KEYS))
    for folder in ("answers", "scores", "noise/1/answers"):
        assert run.store.names(folder) == here.names(folder)
    for name in here.names("scores"):
        assert run.store.sha256(name) == here.sha256(name)
    assert run.store.names("") == [name for name in here.names("") if name != ".lock"]
    assert "report.html" in run.store.names("")
    assert sorted(path.name for path in run.folder.iterdir()) == ["bucket.yaml", "here"]


def test_a_second_call_finds_everything_by_listing_and_asks_nothing_again(run: Run) -> None:
    assert run.evaluate() == 0
    run.store.delete("manifest.json")
    assert run.evaluate() == 0
    assert [len(run.events(event)) for event in ("engine started", "engine swapped")] == [1, 1]
    assert len(run.events("plan")) == 2
    assert run.events("plan")[1]["pending"] == 0


@pytest.mark.parametrize("damage", ["truncated", "deleted", "of other values"])
def test_a_shard_that_is_damaged_in_the_bucket_is_done_again(damage: str, run: Run) -> None:
    assert run.evaluate() == 0
    whole = run.answers()
    shard, other = run.store.names("answers")[3:5]
    match damage:
        case "truncated":
            run.store.write(shard, run.store.read(shard)[:100])
        case "deleted":
            run.store.delete(shard)
        case "of other values":
            run.store.write(shard, run.store.read(other))
    assert run.evaluate() == 0
    assert run.answers().equals(whole)
    assert [event["shard"] for event in run.events("shard damaged")] == [shard]
    assert [event["shard"] for event in run.events("unit done")].count(shard) == 2


@pytest.mark.parametrize("command", ["score", "report", "status"])
def test_a_run_in_a_bucket_can_be_read_by_its_uri(command: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate() == 0
    assert main([command, run.uri]) == 0
    assert "some/run" in capsys.readouterr().out


def test_a_run_in_a_bucket_is_taken_to_run_until_its_log_is_closed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.evaluate() == 0
    run.store.delete(run.store.names("answers")[0])
    capsys.readouterr()
    assert main(["status", run.uri]) == 0
    assert "not running, incomplete" in capsys.readouterr().out
    log = EventLog(run.store)
    log.add("plan", prompts=1)
    log.flush()
    assert main(["status", run.uri]) == 0
    assert "running, or killed" in capsys.readouterr().out


def test_a_bucket_that_holds_something_else_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.store.write("thesis.tex", b"years of work")
    assert run.evaluate() == 2
    assert "not empty and not a run" in capsys.readouterr().err


@pytest.fixture
def within_the_third_unit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen when an engine is asked for the third time: before that unit is written, and after others were."""
    answer, calls = ScriptedEngine.answer, itertools.count(1)

    def have(happen: Callable[[], None]) -> None:
        def answer_then(engine: ScriptedEngine, prompts: Sequence[Prompt], trial: int) -> list[Response]:
            if next(calls) == 3:
                happen()
            return answer(engine, prompts, trial)

        monkeypatch.setattr(ScriptedEngine, "answer", answer_then)

    return have


def test_a_store_that_fails_for_a_while_costs_time_and_nothing_else(
    run: Run, outage: Any, within_the_third_unit: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", outage)
    within_the_third_unit(outage.begin)
    assert run.evaluate() == 0
    assert "Trying again for 60 s" in outage.getvalue()
    assert [len(run.events(event)) for event in ("engine started", "engine swapped")] == [1, 1]
    assert run.answers().select(KEYS).is_unique().all()
    assert run.answers().height == 2 * read_table(run.store, "prompts.arrow").num_rows


def test_a_store_that_does_not_come_back_ends_the_run_which_then_goes_on(
    run: Run,
    outage: Any,
    within_the_third_unit: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    within_the_third_unit(outage.begin)
    assert run.evaluate("dispatch.store_retry_s=0.1") == 1
    outage.end()
    assert "could not be written" in capsys.readouterr().err
    found = run.answers()
    assert run.evaluate() == 0
    assert run.answers().join(found, on=KEYS, how="semi").height == found.height < run.answers().height


def test_engines_in_ray_actors_write_to_the_bucket_themselves(run: Run) -> None:
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(run.config), "dispatch.executor=ray", "dispatch.num_engines=2"]
    # without swaps, an engine that is early does not take over the other's checkpoint
    command.append("dispatch.reuse=restart")
    result = subprocess.run(command, env=os.environ, cwd=run.folder, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert run.answers().height == 2 * read_table(run.store, "prompts.arrow").num_rows
    # but that of a place whose process was not there in time it does take over
    late = {event["engine"] for event in run.events("place waits")}
    assert {event["engine"] for event in run.events("unit done")} | late == {0, 1}
    assert json.loads(run.store.read("provenance.json"))["sessions"][0]["ended"].endswith("prompts done")
    assert sorted(path.name for path in run.folder.iterdir()) == ["bucket.yaml"]
