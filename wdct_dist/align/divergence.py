"""When a training has gone wrong. Pure: from what was logged to the reason for stopping, or None."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wdct_dist.config.align_schema import DivergenceConfig

RISEN = 0.3
"""A reward margin that never was above this has nothing to lose: what it falls by is noise."""


class Diverged(Exception):
    """A training is stopped; says why."""


def not_finite(step: int, loss: float | None, grad_norm: float | None) -> str | None:
    """A loss or a gradient that is no number."""
    for name, value in (("the loss", loss), ("the norm of the gradient", grad_norm)):
        if value is not None and not math.isfinite(value):
            return f"{name} is {value} at step {step}; a lower learning rate may help, or precision: float32"
    return None


def margin_collapsed(margins: Sequence[float], limits: DivergenceConfig) -> str | None:
    """DPO's reward margins, one a step from the first: judged as means over `margin_window` steps."""
    window = limits.margin_window
    if len(margins) < window:
        return None
    means = [math.fsum(margins[end - window : end]) / window for end in range(window, len(margins) + 1)]
    now, best = means[-1], max(means)
    if limits.min_reward_margin is not None and now < limits.min_reward_margin:
        return (
            f"the reward margin over the last {window} steps is {now:.3g} at step {len(margins)}, under divergence.min_reward_margin "
            f"({limits.min_reward_margin:g}): the rejected answers are preferred"
        )
    if limits.max_margin_fall is not None and best > RISEN and now < best * (1 - limits.max_margin_fall):
        return (
            f"the reward margin over the last {window} steps has fallen from {best:.3g} to {now:.3g} at step {len(margins)}, by more than "
            f"divergence.max_margin_fall ({limits.max_margin_fall:g})"
        )
    return None


def control_fell(accuracies: Sequence[float], limits: DivergenceConfig) -> str | None:
    """Accuracy on the control questions: before the stage, then after each epoch."""
    if len(accuracies) < 2:
        return None
    before, now = accuracies[0], accuracies[-1]
    if limits.min_control_accuracy is not None and now < limits.min_control_accuracy:
        return f"accuracy on the control questions is {now:.3f}, under divergence.min_control_accuracy ({limits.min_control_accuracy:g})"
    if limits.max_control_fall is not None and before - now > limits.max_control_fall:
        return (
            f"accuracy on the control questions has fallen from {before:.3f} to {now:.3f}, by more than divergence.max_control_fall "
            f"({limits.max_control_fall:g})"
        )
    return None
