"""Which checkpoints are steps of one training, told by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)
_STEP_INSIDE = re.compile(r"(.*step[-_]?)(\d+)(\D.*)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Step:
    """A checkpoint's place in a training."""

    series: str
    """The checkpoint's name without its number."""
    step: int


def steps(checkpoint_ids: Iterable[str]) -> dict[str, Step]:
    """By checkpoint id, for names that end in a number (`run1/checkpoint-500`, `org/model@step1000`) before which another one is the same.

    Of a name that ends in something else (`org/model@stage1-step1000-tokens5B`) the number after its last "step" counts; the series is then
    the name without its numbers from there on.

    A number that no other name shares the rest with may be anything (`model-7`, `gpt-2024-07-18`), and is not taken for a step.
    """
    found = {}
    for checkpoint_id in checkpoint_ids:
        if (match := _NUMBERED.fullmatch(checkpoint_id)) is not None:
            found[checkpoint_id] = Step(match[1].rstrip("-_/@. ") or match[1], int(match[2]))
        elif (match := _STEP_INSIDE.fullmatch(checkpoint_id)) is not None:
            found[checkpoint_id] = Step(match[1] + re.sub(r"\d+", "", match[3]), int(match[2]))
    counts: dict[str, set[int]] = {}
    for one in found.values():
        counts.setdefault(one.series, set()).add(one.step)
    return {checkpoint_id: one for checkpoint_id, one in found.items() if len(counts[one.series]) > 1}
