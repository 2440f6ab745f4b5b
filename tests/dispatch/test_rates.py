"""What a run measured, kept for the forecasts of later ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.schema import Config, Dtype, EngineConfig
from wdct_dist.dispatch.rates import Rate, recall, remember


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_rate_is_recalled_for_the_same_architecture_and_precision_alone() -> None:
    remember(scripted_checkpoint("a"), Config(), Rate(12.5, 9.0))
    assert recall(scripted_checkpoint("b"), Config()) == Rate(12.5, 9.0)
    assert recall(scripted_checkpoint("b"), Config(engine=EngineConfig(dtype=Dtype.float32))) is None


def test_a_cache_that_cannot_be_read_or_written_is_let_be(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    remember(scripted_checkpoint("a"), Config(), Rate(1.0, 1.0))
    assert recall(scripted_checkpoint("a"), Config()) is None
