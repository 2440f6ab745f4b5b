"""Holm's correction: p-values of a family of tests, such that any false alarm among them has at most the stated probability.

Source: Holm (1979), A simple sequentially rejective multiple test procedure. It needs no independence between the tests.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The adjusted p-values, in the order given: the largest of (m - rank) * p over the smaller ones and itself, at most 1."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
