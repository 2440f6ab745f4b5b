"""The page of examples is run, block by block, as a reader would: files are written, commands and programs are called."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / ".github" / "EXAMPLES.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    file: str | None
    """The file that it is; None: it is run."""
    text: str


def sections() -> dict[str, list[Block]]:
    """The blocks of the page by heading, in order."""
    _, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: [Block(*found) for found in BLOCK.findall(part)] for part in parts}


def run(blocks: list[Block], folder: Path) -> list[str]:
    """Writes and runs blocks in `folder`; what each that was run has printed."""
    site = folder / "site"
    # pip without a network and without touching the environment of the tests
    pip = {"PIP_TARGET": str(site), "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{site}:{ROOT}"}
    environment = os.environ | pip | paths
    printed = []
    for block in blocks:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            continue
        command = {"bash": ["bash", "-euc", block.text], "python": [sys.executable, "-c", block.text]}[block.language]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}\n{ended.stderr}"
        printed.append(ended.stdout)
    return printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's blocks are run, one section after the other."""
    return tmp_path_factory.mktemp("examples")


def cs(folder: Path, name: str) -> Mapping[str, float]:
    """CS of a run by variant; of the last checkpoint where there are several."""
    summary = pl.read_ipc(folder / "runs" / name / "scores" / "summary.arrow").filter(metric="cs", domain="all")
    return dict(summary.select("variant", "value").iter_rows())


@pytest.mark.long
def test_one_model(tmp_path: Path, small_model: Path) -> None:
    [printed] = run(sections()["One model"], tmp_path)
    assert "SmolLM2-135M-Instruct" in printed
    assert 0 <= cs(tmp_path, "one")["direct"] <= 1


def test_one_model_that_is_not_there(tmp_path: Path) -> None:
    """As above without vLLM, whose start takes longer than all the other examples together, and which other tests start."""
    page, command = sections()["One model"]
    [printed] = run([page, replace(command, text=command.text.replace("one.yaml", "one.yaml engine.kind=scripted"))], tmp_path)
    assert "SmolLM2-135M-Instruct" in printed
    assert set(cs(tmp_path, "one")) == {"direct"}


def test_a_sweep_and_its_tables_in_three_readers(folder: Path) -> None:
    missing = [name for name in ("duckdb", "pandas") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (the extra `test` brings them)")
    [printed] = run(sections()["A sweep"], folder)
    assert "runs/sweep: complete" in printed
    report = json.loads((folder / "report.json").read_text())
    [table] = [one for one in report["tables"] if one["title"] == "Consistency"]
    assert "<html" in (folder / "runs" / "sweep" / "report.html").read_text()

    blocks = sections()["Reading the tables"]
    assert [len([line for line in block.text.splitlines() if line]) for block in blocks] == [3, 3, 3]
    by_polars, by_duckdb, by_pandas = map(ast.literal_eval, run(blocks, folder))
    assert by_polars == by_duckdb == by_pandas
    assert set(by_polars) == {"run1/checkpoint-100", "run1/checkpoint-200", "run1/checkpoint-300"}
    assert len(table["rows"]) == 6

    [by_python] = map(ast.literal_eval, run(sections()["From Python"], folder))
    assert by_python == by_polars


def test_items_and_a_way_of_asking_of_ones_own(folder: Path) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        pytest.skip("pip is not installed here")
    [printed] = run(sections()["Your own items"], folder)
    assert "2 items" in printed
    run(sections()["Your own way of asking"], folder)
    found = cs(folder, "friend")
    assert set(found) == {"direct", "friend"}
    assert found["direct"] == cs(folder, "garden")["direct"]


@pytest.mark.long
def test_an_alignment_study(tmp_path: Path, small_model: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")
    [reported, printed] = run(sections()["An alignment study"], tmp_path)
    rates = ast.literal_eval(printed)
    assert set(rates) == {f"SmolLM2-135M-Instruct-word-s0/{stage}" for stage in ("sft", "dpo")}
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert "SmolLM2-135M-Instruct-word-s0/dpo" in reported


def test_the_alignment_study_is_a_configuration(tmp_path: Path) -> None:
    """As far as it goes without training, which takes a minute and which other tests do."""
    from wdct_dist.config.align_rules import load_align_config

    [page, _, _] = sections()["An alignment study"]
    (tmp_path / "words.yaml").write_text(page.text, encoding="utf-8")
    assert load_align_config(tmp_path / "words.yaml").evaluation.data.limit == 4


def test_every_block_of_the_page_is_run_by_a_test_here() -> None:
    tested = {"One model", "A sweep", "From Python", "Your own items", "Your own way of asking", "An alignment study", "Reading the tables"}
    assert set(sections()) == tested
    assert sum(map(len, sections().values())) == PAGE.read_text(encoding="utf-8").count("\n```") / 2
