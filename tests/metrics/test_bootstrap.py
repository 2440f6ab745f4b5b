"""Percentile intervals over items."""

from __future__ import annotations

import numpy as np
import pytest

from wdct_dist.metrics import bootstrap
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, intervals, resampled_ratios


def means(*rows: list[float]) -> tuple[Floats, Floats]:
    """Numerators and denominators of plain means; a NaN is an item without a value."""
    values = np.array(rows, dtype=float)
    return np.nan_to_num(values), (~np.isnan(values)).astype(float)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        ends = intervals(*means(list((draws.random(100) < 0.3).astype(float))), Bootstrap(400, seed=3), "all")
        held += int(ends[0, 0] <= 0.3 <= ends[0, 1])
    # 95 % of 300 with a standard error of 1.3 %; the percentile method is a little short at 100 items
    assert 0.90 <= held / 300 <= 0.985


def test_the_spread_is_that_of_the_mean() -> None:
    values = np.random.default_rng(2).normal(size=2_000)
    found = resampled_ratios(*means(list(values)), Bootstrap(2_000), "all")
    assert found.std() == pytest.approx(values.std() / np.sqrt(2_000), rel=0.06)
    assert found.mean() == pytest.approx(values.mean(), abs=0.003)


def test_trials_of_an_item_stay_together() -> None:
    # Ten trials of each item, all the same: as wide as one trial, not narrower by the root of ten.
    answers = (np.random.default_rng(5).random(200) < 0.5).astype(float)
    one = intervals(answers[None], np.ones((1, 200)), Bootstrap(), "all")
    ten = intervals(10 * answers[None], np.full((1, 200), 10.0), Bootstrap(), "all")
    assert ten == pytest.approx(one)


def test_numerator_and_denominator_are_drawn_together() -> None:
    # 1 among the items that count, so every resample has 1 whichever of them it holds
    counts = (np.arange(50) % 2 == 0).astype(float)[None]
    assert intervals(counts, counts, Bootstrap(200), "all").tolist() == [[1.0, 1.0]]


def test_every_metric_and_every_checkpoint_sees_the_same_resamples() -> None:
    draws = np.random.default_rng(6)
    first, second = draws.random(80), draws.random(80)
    together = resampled_ratios(*means(list(first), list(second)), Bootstrap(100, seed=9), "EthV")
    alone = resampled_ratios(*means(list(second)), Bootstrap(100, seed=9), "EthV")
    assert together[1] == pytest.approx(alone[0])
    shifted = resampled_ratios(*means(list(first + 0.25)), Bootstrap(100, seed=9), "EthV")
    # paired: a constant difference has no spread
    assert shifted[0] - together[0] == pytest.approx(0.25)


def test_the_seed_and_the_set_of_items_decide_the_draws() -> None:
    values = means(list(np.random.default_rng(7).random(60)))
    base = resampled_ratios(*values, Bootstrap(50, seed=1), "all")
    assert np.array_equal(base, resampled_ratios(*values, Bootstrap(50, seed=1), "all"))
    assert not np.array_equal(base, resampled_ratios(*values, Bootstrap(50, seed=2), "all"))
    assert not np.array_equal(base, resampled_ratios(*values, Bootstrap(50, seed=1), "EthV"))


def test_how_many_resamples_are_held_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = means(list(np.random.default_rng(8).random(60)))
    base = resampled_ratios(*values, Bootstrap(50), "all")
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 7 * 60 * 8)
    assert resampled_ratios(*values, Bootstrap(50), "all") == pytest.approx(base)


def test_fewer_than_two_items_with_a_value_have_no_interval() -> None:
    nan = float("nan")
    ends = intervals(*means([1.0, nan, nan], [1.0, 0.0, nan], [nan, nan, nan]), Bootstrap(100), "all")
    assert np.isnan(ends).tolist() == [[True, True], [False, False], [True, True]]


def test_resamples_without_a_value_are_left_out() -> None:
    nan = float("nan")
    # two of 40 items count: e^-2 of the resamples hold neither
    ends = intervals(*means([1.0, 1.0] + [nan] * 38), Bootstrap(300), "all")
    assert ends.tolist() == [[1.0, 1.0]]


def test_no_resamples_no_intervals() -> None:
    assert np.isnan(intervals(*means([0.0, 1.0]), Bootstrap(0), "all")).all()


def test_a_higher_level_is_a_wider_interval() -> None:
    values = means(list(np.random.default_rng(9).random(60)))
    narrow = intervals(*values, Bootstrap(500, level=0.5), "all")[0]
    wide = intervals(*values, Bootstrap(500, level=0.99), "all")[0]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
