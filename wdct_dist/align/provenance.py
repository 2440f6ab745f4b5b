"""Where a produced checkpoint comes from: provenance.json in its directory, written last, so that a directory that has it is whole.

    CHECKPOINT/…                 weights, configuration, tokenizer and chat template, as an engine loads them
    CHECKPOINT/provenance.json   parent digest, data hash, settings, versions, seed

A stage's checkpoint is made beside its place, under a hidden name, and moved there when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wdct_dist.align.stage import Stage
from wdct_dist.config.load import as_plain
from wdct_dist.durable import sync
from wdct_dist.errors import RunDirError
from wdct_dist.tables.storage import TEMPORARY

NAME = "provenance.json"

CARRIED_OVER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.spm", "spiece.model", "tekken.json"),
    *("sentencepiece*.model", "*.tiktoken", "chat_template*", "generation_config.json"),
)
"""Files that training does not change, taken from the parent as they are: the trained model is asked exactly as its parent is."""


def is_made(stage: Stage, directory: Path) -> bool:
    """Whether the directory is there, made by this very stage.

    Raises `RunDirError` where it was made from something else.
    """
    found = read(directory)
    if found is None:
        return False
    if found.get("identity") != stage.identity:
        raise RunDirError(
            f"{directory} was made from another parent, other data or other settings than {stage.title} has now; give another run_dir to "
            "start anew, or remove that directory to train it again."
        )
    return True


def read(directory: Path) -> dict[str, Any] | None:
    """The provenance of a checkpoint; None where the directory is not there, or not whole."""
    try:
        found = json.loads((directory / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextlib.contextmanager
def making(stage: Stage, directory: Path, source: Path, **facts: Any) -> Iterator[Path]:
    """An empty folder to save a model in; it becomes `directory`, whole, when the block ends well. `source`: the parent's files."""
    beside = directory.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        yield beside
        for pattern in CARRIED_OVER:
            for file in source.glob(pattern):
                shutil.copy(file, beside)
        record = {
            "identity": stage.identity,
            "branch": stage.branch,
            "stage": stage.name,
            "parent": {"checkpoint_id": stage.parent.checkpoint_id, "digest": stage.parent.digest, "source": stage.parent.source},
            "data_hash": stage.data_hash,
            "num_examples": len(stage.data),
            "seed": stage.settings.seed,
            "settings": as_plain(stage.settings),
            "num_workers": stage.num_workers,
            **stage.facts,
            **facts,
        }
        (beside / NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
        for file in beside.rglob("*"):
            if file.is_file():
                sync(file)
        if directory.exists():
            shutil.rmtree(directory)  # what a copy of ours left that was cut short by hand
        os.replace(beside, directory)
        sync(directory.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
