"""What each command prints, where it prints it, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wdct_dist.reporting import report_run
from wdct_dist.tables.run_dir import existing_run

if TYPE_CHECKING:
    from conftest import Shell

BAD_CSV = 'Type,id,speak,act,correct_answer\nOpinion,1,"Q?\nA. a\nB. b","Q?\nA. a",\nOpinion,1,"R?\nA. a\nB. b","R?\nA. a\nB. b",\n'


def test_check_prints_the_counts_of_a_set_that_can_be_evaluated(shell: Shell) -> None:
    ended = shell.wdct("check", "bundled")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("This set can be evaluated: 96 items.\n")


def test_check_prints_every_problem_at_once_and_ends_with_2(shell: Shell) -> None:
    shell.write("bad.csv", BAD_CSV)
    ended = shell.wdct("check", "bad.csv")
    assert ended.code == 2
    assert "option-count" in ended.out
    assert "repeated-id" in ended.out
    assert "cannot be evaluated as it is" in ended.out


def test_plan_counts_and_writes_nothing(shell: Shell) -> None:
    ended = shell.wdct("plan", "c.yaml", "data.limit=12")
    assert ended.code == 0
    assert "variant direct: 54 prompts" in ended.out
    assert not shell.run_dir.exists()


def test_plan_says_what_is_done_already(shell: Shell) -> None:
    assert shell.evaluate("data.limit=12").code == 0
    ended = shell.wdct("plan", "c.yaml", "data.limit=12", "checkpoints=[demo,other]")
    assert "108 prompts over 2 checkpoint(s)" in ended.out
    assert "54 of them are done, 54 are left" in ended.out


def test_evaluate_prints_the_report_and_says_apart_from_it_how_it_ended(shell: Shell) -> None:
    ended = shell.evaluate("data.limit=12", "checkpoints=[demo,other]")
    assert ended.code == 0
    assert "Words and Deeds Consistency" in ended.out
    assert "Paired differences" in ended.out
    assert ended.err.endswith(f"{shell.run_dir}: 108 of 108 prompts done\n")


def test_an_incomplete_evaluation_ends_with_3_and_says_why_in_one_sentence(shell: Shell) -> None:
    ended = shell.evaluate("data.limit=2", "checkpoints=[demo,other]", "engine.scripted.fail_start=other")
    assert ended.code == 3
    said = ended.err.splitlines()[-1]
    assert "checkpoint other failed: the scripted engine does not start for other" in said
    assert said.endswith("; what is done is safe, the same command goes on from here")
    assert ".;" not in said


def test_score_derives_each_run_again_and_says_what_replies_say(shell: Shell) -> None:
    assert shell.evaluate("data.limit=4", "prompt.reply_tokens=8").code == 0
    summary = shell.run_dir / "scores" / "summary.csv"
    before = summary.read_text()
    summary.unlink()
    ended = shell.wdct("score", "run", "run")
    assert ended.code == 0
    assert summary.read_text() == before
    assert len(re.findall(r"^run: \d+ figures in scores/summary\.arrow and \.csv", ended.out, re.MULTILINE)) == 2
    assert "demo: 16 replies, 100.0 % read: 16 choose one option" in ended.out


def test_report_prints_one_report_a_run(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2", "report.title=First").code == 0
    assert shell.evaluate("data.limit=2", "report.title=Second", "run_dir=second").code == 0
    ended = shell.wdct("report", "second", "run")
    assert ended.code == 0
    assert ended.out.index("Second") < ended.out.index("First")


def test_status_prints_each_runs_state(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    ended = shell.wdct("status", "run")
    assert ended.code == 0
    assert ended.out.startswith("run: complete\n  demo: 8 of 8 prompts (100 %)\n")


def test_fetch_of_the_items_that_are_there_needs_no_network(shell: Shell, wdct_csv: Path) -> None:
    for name in ("WDCT.csv", "demo.csv"):
        if not (wdct_csv.parent / name).is_file():
            pytest.skip(f"{name} is not at hand")
        shell.write(f"cache/{name}", (wdct_csv.parent / name).read_bytes())
    ended = shell.wdct("fetch", "wdct")
    assert (ended.code, ended.out) == (0, f"{shell.folder / 'cache' / 'WDCT.csv'}\n")


def test_a_run_is_read_from_a_terminal_that_cannot_say_everything(shell: Shell) -> None:
    assert shell.evaluate("data.limit=12", "checkpoints=[demo,other]").code == 0
    ended = process("report", "run", folder=shell.folder, PYTHONIOENCODING="ascii")
    said, errors = ended.communicate(timeout=240)
    assert ended.returncode == 0, errors.decode()
    assert b"demo ? other" in said


def test_an_evaluation_whose_reader_goes_away_is_as_complete_as_any(shell: Shell) -> None:
    ended = process_without_reader("evaluate", "c.yaml", "data.limit=2", "report.html=true", folder=shell.folder)
    assert ended.stderr is not None
    assert ended.stderr.read().decode().endswith("8 of 8 prompts done\n")
    ended.stderr.close()
    assert ended.wait(240) == 0
    assert (shell.run_dir / "report.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_takes_nothing_is_named(shell: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-m", "wdct_dist", "check", "bundled"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b"wdct: the output could not be written: No space left on device. The files of a run are safe.\n"


def test_a_message_that_the_terminal_cannot_say_is_still_printed(shell: Shell) -> None:
    shell.write("i.jsonl", '{"item_id": "模型", "domain": "Opinion"}\n')
    ended = process("check", "i.jsonl", folder=shell.folder, PYTHONIOENCODING="ascii")
    said, errors = ended.communicate(timeout=240)
    assert (ended.returncode, errors) == (2, b"")
    assert b"lacks word, deed" in said


def test_a_setting_with_dashes_is_told_how_it_is_written(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        shell.evaluate("--data.limit=3")
    assert "--data.limit=3 (a setting is written without dashes" in capsys.readouterr().err


def test_figures_are_printed_where_output_takes_text_alone_as_in_a_notebook(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    monkeypatch.setattr(sys, "stdout", said := io.StringIO())
    report_run(existing_run(str(shell.run_dir)), form="json")
    assert json.loads(said.getvalue())["tables"]


def test_a_reader_that_goes_away_is_no_fault(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    ended = process_without_reader("report", "run", folder=shell.folder)
    assert ended.stderr is not None
    assert b"Traceback" not in ended.stderr.read()
    ended.stderr.close()
    assert ended.wait(240) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_any_command_with_3_and_no_traceback(number: signal.Signals, shell: Shell) -> None:
    os.mkfifo(shell.folder / "endless.yaml")
    ended = process("plan", "endless.yaml", folder=shell.folder)
    writer = os.open(shell.folder / "endless.yaml", os.O_WRONLY)  # returns once the command has opened the file
    time.sleep(0.2)
    ended.send_signal(number)
    _, errors = ended.communicate(timeout=240)
    os.close(writer)
    assert ended.returncode == 3
    assert errors.decode() == "wdct: interrupted; what was written is safe, the same command goes on from there.\n"


def process(*arguments: str, folder: Path, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wdct_dist", *arguments]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=stdout, stderr=subprocess.PIPE)


def process_without_reader(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    """Its output is a pipe whose reader has gone before it begins."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return process(*arguments, folder=folder, stdout=writer)
    finally:
        os.close(writer)
