"""`wdct status`: how far a run is, from its files alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.config.load import load_config
from wdct_dist.pipeline import evaluate
from wdct_dist.report.status import status_text, unfinished_text
from wdct_dist.tables.events import EventLog
from wdct_dist.tables.run_dir import read_config, read_provenance
from wdct_dist.tables.storage import Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "c.yaml"
    file.write_text(
        f"run_dir: {tmp_path / 'run'}\ndata: {{limit: 12}}\ncheckpoints: [demo, other]\nengine: {{kind: scripted}}\n"
        "dispatch: {executor: local, shard_size: 20}\nmetrics: {bootstrap_resamples: 0}\n"
    )
    return lambda *overrides: evaluate(load_config(file, overrides)).store


def test_a_finished_run_is_complete(run: Callable[..., Store]) -> None:
    lines = status_text(run()).splitlines()
    assert lines[0].endswith("/run: complete")
    assert lines[1:3] == ["  demo: 54 of 54 prompts (100 %)", "  other: 54 of 54 prompts (100 %)"]


def test_a_shard_that_is_gone_is_not_done_whatever_the_manifest_says(run: Callable[..., Store]) -> None:
    store = run()
    store.delete(store.names("answers")[0])
    text = status_text(store)
    assert "not running, incomplete; the same `wdct evaluate` goes on from here" in text
    assert "  demo: 34 of 54 prompts (63 %)" in text


def test_trials_are_counted(run: Callable[..., Store]) -> None:
    assert "  demo: 162 of 162 prompts (100 %)" in status_text(run("trials=3"))


def test_a_checkpoint_that_failed_is_named_with_the_reason_and_its_faults_are_counted(run: Callable[..., Store]) -> None:
    text = status_text(run("engine.scripted.fail_start=other"))
    assert "  other: failed: the scripted engine does not start for other" in text
    assert "  checkpoint failed: 1, start failed: 1" in text
    assert ": checkpoint failed: the scripted engine does not start for other" in text


def test_the_last_event_tells_when_something_last_happened(run: Callable[..., Store]) -> None:
    store = run()
    EventLog(store).add("engine lost", engine=0, reason="killed")
    last = json.loads(store.read("events.jsonl").splitlines()[-1])
    assert status_text(store).splitlines()[-2:] == [
        f"  last fault, {last['time']}: engine lost: killed",
        f"  last event, {last['time']}: engine lost",
    ]


def test_figures_of_an_unfinished_run_come_with_a_sentence_that_says_so(run: Callable[..., Store]) -> None:
    store = run()
    config, record = read_config(store), read_provenance(store)
    assert unfinished_text(store, config, record) is None
    store.delete(store.names("answers")[0])
    assert unfinished_text(store, config, record) == "not finished: 88 of 108 prompts are done; `wdct evaluate` goes on from here"
