"""Commands whose standard output or error is closed: the work is done all the same."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = "checkpoints: [demo]\ndata: {limit: 2}\nengine: {kind: scripted}\ndispatch: {executor: local}\nreport: {html: false}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_evaluation_with_closed_streams_is_complete(tmp_path: Path, closed: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    command = shlex.join([sys.executable, "-m", "wdct_dist", "evaluate", str(tmp_path / "c.yaml"), f"run_dir={tmp_path / 'run'}"])
    ended = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0)
    assert len(list((tmp_path / "run" / "answers").glob("*.arrow"))) == 1
    assert (tmp_path / "run" / "scores" / "summary.csv").is_file()
