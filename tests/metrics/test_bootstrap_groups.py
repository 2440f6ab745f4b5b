"""Very many items are drawn in random groups, with the same spread."""

from __future__ import annotations

import numpy as np
import pytest

from wdct_dist.metrics import bootstrap
from wdct_dist.metrics.bootstrap import Bootstrap, intervals, resampled_ratios


def test_the_spread_is_that_of_drawing_items(monkeypatch: pytest.MonkeyPatch) -> None:
    # sorted, as items are by domain: groups of every n-th item would show nothing of it
    values = np.sort(np.random.default_rng(1).random(20_000))[None]
    settings = Bootstrap(2_000)
    monkeypatch.setattr(bootstrap, "GROUPS", 1_000)
    found = resampled_ratios(values, np.ones_like(values), settings, "all")
    # 2,000 resamples of 1,000 groups: the standard deviation is known to 2.7 %
    assert found.std() == pytest.approx(values.std() / 20_000**0.5, rel=0.11)
    assert found.mean() == pytest.approx(values.mean(), abs=0.0003)


def test_a_ratio_keeps_numerators_and_denominators_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "GROUPS", 50)
    counts = (np.arange(500) % 2 == 0).astype(float)[None]
    assert intervals(counts, counts, Bootstrap(100), "all").tolist() == [[1.0, 1.0]]


def test_every_checkpoint_has_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "GROUPS", 50)
    values = np.random.default_rng(2).random((1, 500))
    one = resampled_ratios(values, np.ones_like(values), Bootstrap(100), "all")
    other = resampled_ratios(values + 0.25, np.ones_like(values), Bootstrap(100), "all")
    assert other - one == pytest.approx(0.25)


def test_up_to_that_many_items_each_is_drawn_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random((2, 500))
    before = resampled_ratios(values, np.ones_like(values), Bootstrap(50), "all")
    monkeypatch.setattr(bootstrap, "GROUPS", 500)
    assert np.array_equal(resampled_ratios(values, np.ones_like(values), Bootstrap(50), "all"), before)


def test_intervals_cover_the_truth_at_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "GROUPS", 200)
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        values = generator.beta(3, 1, size=(1, 2_000))
        low, high = intervals(values, np.ones_like(values), Bootstrap(300, seed=seed, level=0.9), "all")[0]
        covered += int(low <= 0.75 <= high)
    # binomial with 0.9: mean 180, standard deviation 4.2; four of them either way
    assert 163 <= covered <= 197


def test_counts_that_are_kept_are_those_that_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random((2, 300))
    kept = [resampled_ratios(values, np.ones_like(values), Bootstrap(60, seed=8), "all") for _ in range(2)]
    monkeypatch.setattr(bootstrap, "HELD_BYTES", 0)
    drawn = resampled_ratios(values, np.ones_like(values), Bootstrap(60, seed=8), "all")
    assert np.array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], drawn)
