from __future__ import annotations

import dataclasses
import json

import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.checkpoints.types import Checkpoint


def test_a_checkpoint_as_json_has_every_field_and_survives_json() -> None:
    checkpoint = scripted_checkpoint("demo")
    as_json = checkpoint.to_json()
    assert list(as_json) == [
        *(field.name for field in dataclasses.fields(Checkpoint) if field.name not in ("origin", "stamp")),
        "digest_of",
    ]
    assert json.loads(json.dumps(as_json)) == as_json


def test_a_checkpoint_cannot_be_changed_after_it_was_described() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        scripted_checkpoint("demo").digest = "other"  # type: ignore[misc]
