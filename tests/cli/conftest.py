"""The command line as a user has it: a folder, a configuration in it, and what a command said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from wdct_dist.cli.main import main

CONFIG = (
    "run_dir: {run}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\ndispatch: {{executor: local}}\n"
    "metrics: {{bootstrap_resamples: 10}}\nreport: {{html: false}}\n"
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """Runs `wdct` in `folder`, which holds c.yaml: the bundled items, a scripted engine, the run directory `folder`/run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self._capsys = capsys
        self.write("c.yaml", CONFIG.format(run=self.run_dir))

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def wdct(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        code = main(arguments)
        said = self._capsys.readouterr()
        return Ended(code, said.out, said.err)

    def evaluate(self, *overrides: str) -> Ended:
        return self.wdct("evaluate", "c.yaml", *overrides)

    def refused(self, overrides: tuple[str, ...], words: tuple[str, ...]) -> None:
        """`wdct evaluate` ends with 2, its message has all `words` and no traceback, and nothing was answered."""
        ended = self.evaluate(*overrides)
        assert ended.code == 2, ended.err
        for word in words:
            assert word in ended.err
        assert "Traceback" not in ended.err
        assert self.answers() == []

    def answers(self) -> list[str]:
        folder = self.run_dir / "answers"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    # what a run measures is kept for forecasts, and not in the user's own cache
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    return Shell(tmp_path, capsys)
