"""A variant in a package of one's own: installed by pip, found by its entry point, asked, scored under its own name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from wdct_dist.config.load import load_config
from wdct_dist.errors import ConfigError
from wdct_dist.pipeline import evaluate
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.run_dir import SUMMARY

PACKAGE = Path(__file__).parent.parent / "example_variant"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package in it, installed as a user would, without a network."""
    pip = [sys.executable, "-m", "pip"]
    # asked as a process: setuptools answers `find_spec("pip")` with a warning once anything has imported distutils
    if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
        pytest.skip("pip is not installed here")
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(PACKAGE, folder / "source")  # pip builds in the source folder
    target = folder / "site"
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    result = subprocess.run([*pip, "install", *options, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    def write(variants: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(
            f"run_dir: {tmp_path / 'run'}\nvariants: {variants}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\n"
            "dispatch: {executor: local}\nmetrics: {bootstrap_resamples: 20}\n"
        )
        return path

    return write


def test_it_is_evaluated_like_any_other(
    installed: Path, write_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(installed)
    outcome = evaluate(load_config(write_config("[direct, friend, pressed]")))
    assert outcome.exit_code == 0
    summary = pl.DataFrame(read_table(outcome.store, SUMMARY))
    items = summary.filter((pl.col("metric") == "cs") & (pl.col("domain") == "all")).sort("variant")
    assert dict(items.select("variant", "n").iter_rows()) == {
        "direct": 96,
        "friend": 72,
        "pressed": 96,
        "pressed/seconds=5": 96,
        "pressed/seconds=60": 96,
    }
    assert "friend: 24 items left out: more than two options" in capsys.readouterr().err


def test_the_command_line_plans_it(installed: Path, write_config: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "wdct_dist", "plan", str(write_config("[friend]"))]
    path = {"PYTHONPATH": f"{installed}:{PACKAGE.parent.parent}"}
    result = subprocess.run(command, capture_output=True, text=True, env=path, check=True)
    assert "variant friend: 288 prompts" in result.stdout
    assert "friend: 24 items left out: more than two options" in result.stdout


def test_where_its_package_is_missing_the_variants_that_there_are_are_named(write_config: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"there is no variant 'friend'; installed are .*direct"):
        evaluate(load_config(write_config("[friend]")))
