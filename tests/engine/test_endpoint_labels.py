"""From the most probable tokens of a reply to label probabilities and bounds."""

from __future__ import annotations

import math

import pytest

from wdct_dist.engine.endpoint_labels import MOST_SPELLINGS, ROUNDING, read_labels
from wdct_dist.engine.endpoint_replies import Place


def place(token: str, **probs: float) -> Place:
    """A place by its tokens' probabilities; `_` in a name is a blank."""
    return Place(token, tuple((name.replace("_", " "), math.log(prob)) for name, prob in probs.items()))


def test_a_labels_probability_is_the_sum_over_its_spellings() -> None:
    reading = read_labels(("A", "B"), [place("A", A=0.5, _A=0.2, B=0.1, _B=0.05, I=0.1)], 5)
    assert reading is not None
    assert reading.logprobs == pytest.approx((math.log(0.7), math.log(0.15)))
    assert reading.mass == pytest.approx(0.85)


def test_two_tokens_of_the_same_text_are_both_counted() -> None:
    reading = read_labels(("A", "B"), [Place("A", (("A", math.log(0.5)), ("A", math.log(0.2)), ("B", math.log(0.1))))], 3)
    assert reading is not None
    assert reading.logprobs == pytest.approx((math.log(0.7), math.log(0.1)))


def test_a_label_that_is_not_shown_is_bounded_and_has_no_number() -> None:
    reading = read_labels(("A", "B"), [place("A", A=0.9, I=0.05, The=0.001)], 3)
    assert reading is not None
    assert reading.logprobs is None
    assert reading.lower == (pytest.approx(math.log(0.9)), None)
    hidden = MOST_SPELLINGS * 0.001
    assert reading.upper == pytest.approx((math.log(0.9 + hidden), math.log(hidden)))
    assert reading.surely == 0
    assert reading.mass == pytest.approx(0.9)


def test_a_bound_is_never_more_than_what_is_left_of_one() -> None:
    reading = read_labels(("A", "B"), [place("A", A=0.95, I=0.04)], 2)
    assert reading is not None
    assert reading.upper[1] == pytest.approx(math.log(0.01))
    rounded = read_labels(("A", "B"), [place("A", A=0.97, I=0.04)], 2)
    assert rounded is not None
    assert rounded.upper[1] == pytest.approx(math.log(ROUNDING))


def test_a_token_that_was_drawn_and_shown_besides_does_not_lower_the_bound() -> None:
    reading = read_labels(("A", "B"), [place("odd", A=0.5, I=0.2, The=0.1, odd=1e-9)], 3)
    assert reading is not None
    assert reading.upper[1] == pytest.approx(math.log(0.2))  # what is left of 1; by the least shown, 0.4
    many = read_labels(("A", "B"), [place("odd", A=0.9, I=0.05, The=0.01, odd=1e-9)], 3)
    assert many is not None
    assert many.upper[1] == pytest.approx(math.log(0.04))


def test_between_labels_that_are_not_shown_nothing_is_sure() -> None:
    reading = read_labels(("A", "B"), [place("I", I=0.9, The=0.05)], 2)
    assert reading is not None
    assert (reading.logprobs, reading.lower, reading.surely, reading.mass) == (None, (None, None), None, 0.0)


def test_a_shown_label_may_have_spellings_that_are_not_shown() -> None:
    reading = read_labels(("A", "B", "C"), [place("A", A=0.3, B=0.29)], 2)
    assert reading is not None
    assert reading.upper[:2] == pytest.approx((math.log(0.71), math.log(0.7)))
    assert reading.surely is None


def test_a_label_under_the_bound_of_another_is_not_sure() -> None:
    reading = read_labels(("A", "B"), [place("I", I=0.6, A=0.1, The=0.1)], 3)
    assert reading is not None
    assert reading.surely is None


def test_a_label_of_several_tokens_is_followed_along_what_was_generated() -> None:
    opened = Place("(", (("(", math.log(0.8)), ("I", math.log(0.1))))
    letter = Place("b", (("b", math.log(0.7)), ("a", math.log(0.2)), ("x", math.log(0.05))))
    closed = Place(")", ((")", math.log(0.9)), ("]", math.log(0.05))))
    reading = read_labels(("(a)", "(b)"), [opened, letter, closed], 3)
    assert reading is not None
    # behind `(a` nothing was generated: what it would have become is bounded
    assert reading.lower == (None, pytest.approx(math.log(0.8 * 0.7 * 0.9)))
    assert reading.upper[0] > math.log(0.8 * 0.2)
    assert reading.surely == 1


def test_labels_of_two_tokens_with_a_common_first_one_are_both_known() -> None:
    reading = read_labels(("(a)", "(b)"), [place("(", **{"(": 0.8, "I": 0.1}), place("b)", **{"b)": 0.7, "a)": 0.2})], 2)
    assert reading is not None
    assert reading.logprobs == pytest.approx((math.log(0.16), math.log(0.56)))


def test_a_reply_that_ends_within_a_label_bounds_it() -> None:
    reading = read_labels(("(a)", "(b)"), [place("(", **{"(": 0.8, "I": 0.1})], 2)
    assert reading is not None
    assert reading.lower == (None, None)
    assert min(reading.upper) >= math.log(0.8)


def test_a_blank_of_its_own_in_front_is_followed() -> None:
    reading = read_labels(("A", "B"), [place("_".replace("_", " "), _=0.9, I=0.05), place("A", A=0.6, B=0.3)], 2)
    assert reading is not None
    assert reading.logprobs == pytest.approx((math.log(0.54), math.log(0.27)))


@pytest.mark.parametrize("places", [[], [Place("A", ())]])
def test_without_logprobs_there_is_no_reading(places: list[Place]) -> None:
    assert read_labels(("A", "B"), places, 20) is None
