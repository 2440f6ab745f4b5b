"""How checkpoints stand in their variants: by hand, on a live run, on a killed one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.cli.main import main
from wdct_dist.report.standing import Standing, standings
from wdct_dist.tables.shards import ShardKey

RECORD = {
    "prompts": {"variants": [["direct", 0, 100], ["cot", 100, 160], ["direct", 160, 200]]},
    "checkpoints": [{"checkpoint_id": "demo", "digest": "ab" * 32}, {"checkpoint_id": "other", "digest": "cd" * 32}],
}
CONFIG = """
run_dir: {run}
data: {{limit: 24}}
checkpoints: [alpha, beta]
variants: [direct, joint]
engine: {{kind: scripted, scripted: {{delay_s: 0.1, error_on: you}}}}
report: {{html: false}}
dispatch: {{executor: local, shard_size: 16}}
metrics: {{bootstrap_resamples: 0}}
"""


def shard(start: int, stop: int, trial: int = 0) -> str:
    return ShardKey("ab" * 32, trial, start, stop).name("demo")


def event(seconds: int, name: str, **facts: Any) -> dict[str, Any]:
    return {"time": f"2026-01-01T00:00:{seconds:02d}.000+00:00", "event": name, **facts}


def given(seconds: int, engine: int, start: int, stop: int, variant: str = "direct") -> dict[str, Any]:
    return event(seconds, "unit given", engine=engine, checkpoint="demo", variant=variant, shard=shard(start, stop), rows=stop - start)


def done(seconds: int, engine: int, start: int, stop: int, errors: int = 0) -> dict[str, Any]:
    facts = {"engine": engine, "checkpoint": "demo", "variant": "direct", "shard": shard(start, stop), "rows": stop - start}
    return event(seconds, "unit done", errors=errors, **facts)


def test_shards_count_for_the_variants_that_they_cover() -> None:
    found = standings(RECORD, 2, [shard(0, 50), shard(50, 120), shard(150, 170, trial=1)], [])
    assert found["demo"] == [Standing("direct", wanted=280, done=110), Standing("cot", wanted=120, done=30)]
    assert [one.done for one in found["other"]] == [0, 0]


def test_what_was_given_and_is_not_done_is_running() -> None:
    events = [given(0, 0, 0, 50), given(0, 1, 50, 100), given(1, 0, 100, 160, "cot"), done(10, 0, 0, 50, errors=3)]
    direct, cot = standings(RECORD, 1, [shard(0, 50)], events)["demo"]
    assert (direct.running, direct.engines, direct.errors, direct.shards_with_errors) == (50, {1}, 3, [shard(0, 50)])
    assert direct.prompts_per_s == pytest.approx(50 / 10)
    assert (cot.running, cot.engines, cot.prompts_per_s) == (60, {0}, None)


def test_a_lost_engine_and_a_new_session_have_nothing_running() -> None:
    events = [given(0, 0, 0, 50), given(0, 1, 50, 100), event(5, "engine lost", engine=0, reason="killed")]
    assert standings(RECORD, 1, [], events)["demo"][0].running == 50
    assert standings(RECORD, 1, [], [*events, event(9, "plan", prompts=200)])["demo"][0].running == 0


def test_a_live_run_a_killed_one_and_a_finished_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))  # rates that other tests have measured decide how a run is cut
    run, config = tmp_path / "run", tmp_path / "c.yaml"
    config.write_text(CONFIG.format(run=run))
    process = subprocess.Popen([sys.executable, "-m", "wdct_dist", "evaluate", str(config)], stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None
            if len(list(run.glob("answers/*.arrow"))) >= 3:
                # looked at while it stands still, and killed as it stood: how long a look takes changes nothing
                process.send_signal(signal.SIGSTOP)
                assert main(["status", str(run)]) == 0
                text = capsys.readouterr().out
                # not between two units
                if re.search(r"^    direct: (?!112)\d+ of 112, 16 running on engine 0, [\d.]+ prompts/s", text, re.MULTILINE):
                    break
                process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert ": running" in text
    assert re.search(r"^    joint: 0 of \d+$", text, re.MULTILINE)
    assert main(["status", str(run)]) == 0
    text = capsys.readouterr().out
    assert "not running, incomplete" in text
    assert ", 16 were running when it ended" in text
    assert main(["evaluate", str(config), "engine.scripted.delay_s=0"]) == 0
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    text = capsys.readouterr().out
    assert ": complete" in text
    assert re.search(r"^    direct: 112 of 112, [\d.,]+ prompts/s, \d+ with an error instead of an answer$", text, re.MULTILINE)
    assert re.search(r"^      \d+ times: ", text, re.MULTILINE)
