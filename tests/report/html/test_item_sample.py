"""Which items a page shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.report.html.item_sample import Sample, draw_sample
from wdct_dist.tables.run_dir import read_provenance
from wdct_dist.tables.storage import Store


@pytest.fixture
def draw(run: Path) -> Any:
    store = Store(str(run))
    digests = {one["checkpoint_id"]: one["digest"] for one in read_provenance(store)["checkpoints"]}

    def sample(size: int, seed: int = 0) -> Sample:
        return draw_sample(store, digests, size, seed)

    return sample


def test_a_sample_is_even_over_checkpoints_and_kinds(draw: Any, run: Path) -> None:
    sample = draw(24)
    counts = Counter((one["checkpoint_id"], one["kind"]) for one in sample.cases)
    assert len(sample.cases) == 24
    assert len({checkpoint for checkpoint, _ in counts}) == 4
    assert set(counts.values()) == {2}
    assert sample.num_rows == pl.read_ipc(run / "scores" / "items.arrow").height


def test_the_same_seed_draws_the_same_and_another_one_others(draw: Any) -> None:
    assert draw(24).cases == draw(24).cases
    assert draw(24).cases != draw(24, seed=1).cases


def test_a_small_run_is_shown_whole(draw: Any) -> None:
    sample = draw(100_000)
    assert len(sample.cases) == sample.num_rows


def test_kinds_say_how_words_and_deeds_stand_to_each_other(draw: Any) -> None:
    for one in draw(100_000).cases:
        tied = one["word"]["option"] is None or one["deed"]["option"] is None
        expected = "tie" if tied else {0.0: "differ", 1.0: "same"}.get(one["match"], "order")
        assert one["kind"] == expected
