"""What `wdct evaluate` prints at the end of whole runs with the scripted engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from wdct_dist.cli.main import main

CONFIG = """
run_dir: {run}
data: {{limit: 24}}
checkpoints: [alpha, beta]
engine: {{kind: scripted}}
report: {{html: false}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 50}}
"""


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Evaluates under overrides and returns what was printed, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*overrides: str) -> str:
        config = tmp_path / "c.yaml"
        config.write_text(CONFIG.format(run=tmp_path / "run"))
        assert main(["evaluate", str(config), *overrides]) == 0
        return capsys.readouterr().out

    return run


def test_a_family_of_fifteen_members_is_one_row_and_a_table_of_effects(report: Callable[..., str], tmp_path: Path) -> None:
    text = report("variants=[direct,augmented]")
    assert pl.read_ipc(tmp_path / "run" / "scores" / "summary.arrow")["variant"].n_unique() == 1 + 15 + 1
    assert "augmented/" not in text
    assert len(text.splitlines()) < 110
    assert max(len(line) for line in text.splitlines()) <= 80
    assert len(re.findall("CS is highest for", text)) == 2
    for level in ("labels=letters", "labels=digits", "labels=parens", *(f"wording={number}" for number in range(5))):
        assert text.count(level) == 2  # one table a checkpoint


def test_every_side_statistic_of_a_run_is_in_its_report(report: Callable[..., str]) -> None:
    text = " ".join(report("trials=2", "metrics.noise_repeats=1", "data.languages=[en,zh]", "prompt.reply_tokens=12").split())
    for words in ("stable stable trials noise noise text", "en–zh", "over the trials: bit-stable", "Holm", "A/A repeats"):
        assert words in text


def test_reasonings_cut_at_the_limit_are_counted_and_warned_of(report: Callable[..., str], tmp_path: Path) -> None:
    text = " ".join(report("variants=[cot]", "sampling.max_new_tokens=2").split())
    answers = pl.scan_ipc(str(tmp_path / "run" / "answers" / "*.arrow")).collect()
    assert set(answers["finish_reason"]) == {"length"}
    assert answers["option_logprobs"].null_count() == 0
    assert "cut short" in text
    assert "of the reasonings reached sampling.max_new_tokens and were cut for alpha (1.000); beta (1.000)" in text


def test_what_an_engine_says_of_itself_is_in_the_report(report: Callable[..., str]) -> None:
    assert "pseudo-answers: no model was run" in report()
