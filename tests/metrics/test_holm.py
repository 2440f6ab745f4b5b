"""Holm's correction, worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wdct_dist.metrics.holm import holm


def test_four_tests_worked_by_hand() -> None:
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1 = 0.04, which is raised to the 0.06 before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_nothing_is_above_1() -> None:
    assert holm([0.6, 0.5, 0.9]) == [1.0, 1.0, 1.0]


def test_one_test_is_not_corrected_and_none_is_nothing() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_equal_p_values_stay_equal() -> None:
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_it_is_between_no_correction_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for before, after in zip(p_values, adjusted, strict=True):
        assert before <= after <= min(1.0, len(p_values) * before)
    in_order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[place] for place in in_order] == sorted(adjusted)
