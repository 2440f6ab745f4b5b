"""One broken checkpoint among three: named before any engine starts, and the other two are evaluated."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

CONFIG = """
run_dir: {run}
data: {{limit: 4}}
checkpoints: ['{models}/step-*']
engine: {{cpu_cache_gib: 0.1, max_model_len: 512}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 0}}
"""


@pytest.mark.slow
def test_a_checkpoint_cut_short_fails_alone_and_by_name_before_any_engine_starts(
    write_model: Callable[..., Path], wdct: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    broken = [write_model(f"step-{step}", seed=step) for step in (1, 2, 10)][1] / "model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1000])
    run = tmp_path / "run"
    (tmp_path / "run.yaml").write_text(CONFIG.format(run=run, models=tmp_path))

    done = wdct("evaluate", str(tmp_path / "run.yaml"))

    assert done.returncode == 3, done.stderr
    left_out = done.stderr.index("checkpoint step-2 is left out: checkpoint 'step-2'")
    assert f"{broken}: cut short: its header says {len(whole):,} bytes, the file has {len(whole) - 1000:,}" in done.stderr
    assert left_out < done.stderr.index("0 of "), "named before the first engine started"
    assert set(pl.read_ipc(run / "scores" / "summary.arrow")["checkpoint_id"]) == {"step-1", "step-10"}
    assert list(json.loads((run / "provenance.json").read_text())["failed_checkpoints"]) == ["step-2"]
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).select("checkpoint_id", "error").collect()
    assert answers["error"].null_count() == answers.height
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    started = [event["checkpoint"] for event in events if event["event"] == "engine started"]
    assert started == ["step-1", "step-10"]

    broken.write_bytes(whole)
    again = wdct("evaluate", str(tmp_path / "run.yaml"))
    assert again.returncode == 0, again.stderr
    summary = pl.read_ipc(run / "scores" / "summary.arrow")
    assert set(summary["checkpoint_id"]) == {"step-1", "step-2", "step-10"}
