"""Run directories that cannot be used: exit code 2, and what is in them stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Shell


def test_a_run_directory_of_another_configuration(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    before = shell.answers()
    ended = shell.evaluate("data.limit=3")
    assert ended.code == 2
    assert "data.limit: the run has 2, now came 3" in ended.err
    assert shell.answers() == before


def test_a_run_directory_with_other_things_in_it(shell: Shell) -> None:
    shell.write("run/thesis.tex", "precious")
    shell.refused((), ("not empty and not a run", "thesis.tex"))
    assert [path.name for path in shell.run_dir.iterdir()] == ["thesis.tex"]


def test_a_run_directory_that_is_a_file(shell: Shell) -> None:
    shell.write("run.txt", "x")
    shell.refused(("run_dir=run.txt",), ("is a file",))


def test_a_run_directory_that_cannot_be_written(shell: Shell) -> None:
    # /proc refuses new folders also to root, whom permission bits do not stop
    (shell.folder / "locked").mkdir(mode=0o500)
    target = "/proc/run" if os.geteuid() == 0 else "locked/run"
    shell.refused((f"run_dir={target}",), ("cannot be written",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data: [", "config.yaml is not readable"),
        ("nonsense: 3\n", "config.yaml is not readable"),
        ("", "holds a run of another configuration"),
    ],
    ids=["not YAML", "other keys", "cut to nothing"],
)
def test_a_run_whose_configuration_was_damaged(content: str, words: str, shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    before = shell.answers()
    shell.write("run/config.yaml", content)
    ended = shell.evaluate("data.limit=2")
    assert ended.code == 2
    assert words in ended.err
    assert shell.answers() == before


def test_a_refused_configuration_can_be_corrected_in_the_same_run_directory(shell: Shell) -> None:
    assert shell.evaluate("prompt.labels=[A,B]").code == 2
    assert shell.evaluate().code == 0


def test_a_run_that_lacks_what_was_asked_says_so_until_it_is_mended(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    (shell.run_dir / "items.arrow").unlink()
    for command in (("score",), ("export", "out", "--format", "lm-eval")):
        ended = shell.wdct(command[0], str(shell.run_dir), *command[1:])
        assert (ended.code, ended.err.count("lacks items.arrow; give the `wdct evaluate` command again")) == (2, 1)
    assert shell.evaluate("data.limit=2").code == 0
    assert shell.wdct("score", str(shell.run_dir)).code == 0


def test_tables_that_were_removed_are_derived_again(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    before = shell.wdct("report", str(shell.run_dir)).out
    for command in (("report",), ("export", "out", "--format", "lm-eval")):
        shutil.rmtree(shell.run_dir / "scores")
        assert shell.wdct(command[0], str(shell.run_dir), *command[1:]).code == 0
    assert shell.wdct("report", str(shell.run_dir)).out == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_copy_that_may_only_be_read_has_its_state_and_report(shell: Shell) -> None:
    assert shell.evaluate("data.limit=2").code == 0
    before = shell.wdct("report", str(shell.run_dir)).out
    os.utime(shell.run_dir / "manifest.json")  # as a copy may be: the tables seem to be older than the answers
    mounted = ["mount", "--bind", "-o", "ro", str(shell.run_dir), str(shell.run_dir)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        state, report = (shell.wdct(command, str(shell.run_dir)) for command in ("status", "report"))
    finally:
        subprocess.run(["umount", str(shell.run_dir)], check=True)
    assert (state.code, report.code, report.out) == (0, 0, before)
    assert "shown as they are" in report.err
