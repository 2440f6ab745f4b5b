"""A scripted run to be exported: two languages, a family, reasoning, a conversation, two trials, names that no file may have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.cli.main import main

CONFIG = {
    "checkpoints": ["org/one", "org-one", "a/../b: <模型>"],
    "variants": ["direct", "cot", "joint", "augmented"],
    "augment": {"wordings": [0], "label_sets": ["letters", "digits"]},
    "data": {"languages": ["en", "zh"], "limit": 5},
    "prompt": {"reply_tokens": 20},
    "trials": 2,
    "engine": {"kind": "scripted"},
    "dispatch": {"executor": "local"},
    "metrics": {"bootstrap_resamples": 50},
    "report": {"html": False},
}


@pytest.fixture(scope="session")
def run(evaluated: Callable[[str, dict[str, Any]], Path]) -> Path:
    return evaluated("export", CONFIG)


@pytest.fixture(scope="session")
def inspect_logs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    assert main(["export", str(run), str(folder), "--format", "inspect"]) == 0
    return folder


@pytest.fixture(scope="session")
def lm_eval_logs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm_eval")
    assert main(["export", str(run), str(folder), "--format", "lm-eval"]) == 0
    return folder
