"""When a training is stopped, and when not."""

from __future__ import annotations

import math

from wdct_dist.align.divergence import control_fell, margin_collapsed, not_finite
from wdct_dist.config.align_schema import DivergenceConfig

LIMITS = DivergenceConfig(margin_window=2, min_reward_margin=-1.0, max_margin_fall=0.9, min_control_accuracy=None, max_control_fall=0.3)


def test_a_loss_or_a_gradient_that_is_no_number_stops() -> None:
    assert not_finite(3, 0.7, 12.0) is None
    assert not_finite(3, None, None) is None
    assert "the loss is nan at step 3" in str(not_finite(3, math.nan, 1.0))
    assert "the norm of the gradient is inf at step 4" in str(not_finite(4, 0.5, math.inf))


def test_a_reward_margin_is_judged_over_its_window_alone() -> None:
    assert margin_collapsed([-5.0], LIMITS) is None  # not a window yet
    assert margin_collapsed([0.0, 0.4, -0.4, 0.3], LIMITS) is None
    assert margin_collapsed([1.0, -1.9, 1.0], LIMITS) is None  # one bad step is none


def test_a_margin_under_the_limit_stops() -> None:
    assert "divergence.min_reward_margin (-1)" in str(margin_collapsed([0.0, -0.5, -1.7], LIMITS))
    assert margin_collapsed([0.0, -0.5, -1.7], DivergenceConfig(margin_window=2, min_reward_margin=None)) is None


def test_a_margin_that_loses_nearly_all_that_it_had_stops_and_noise_around_zero_does_not() -> None:
    assert "has fallen from 2 to 0.1" in str(margin_collapsed([0.0, 2.0, 2.0, 0.1, 0.1], LIMITS))
    assert margin_collapsed([0.0, 2.0, 2.0, 0.5, 0.5], LIMITS) is None
    assert margin_collapsed([0.0, 0.05, 0.05, 0.0, 0.0], LIMITS) is None


def test_accuracy_on_the_control_questions_is_held_against_what_it_was_and_against_its_limit() -> None:
    assert control_fell([0.9], LIMITS) is None
    assert control_fell([0.9, 0.7, 0.61], LIMITS) is None
    assert "has fallen from 0.900 to 0.500" in str(control_fell([0.9, 0.7, 0.5], LIMITS))
    assert "under divergence.min_control_accuracy (0.8)" in str(control_fell([0.9, 0.7], DivergenceConfig(min_control_accuracy=0.8)))
