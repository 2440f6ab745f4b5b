"""What a variant's name says."""

from __future__ import annotations

import pytest

from wdct_dist.metrics.factors import factors, family


def test_the_parts_after_the_first_slash_are_factors_in_their_order() -> None:
    name = "augmented/labels=digits/wording=2/paraphrase=0/system=none"
    assert list(factors(name).items()) == [("labels", "digits"), ("wording", "2"), ("paraphrase", "0"), ("system", "none")]
    assert family(name) == "augmented"


@pytest.mark.parametrize("name", ["direct", "mine/special", "mine/a=1/special", "mine/=1", "mine/a=", "mine/"])
def test_a_name_with_any_other_part_is_a_name_and_nothing_more(name: str) -> None:
    assert factors(name) == {}
    assert family(name) is None


def test_a_level_may_hold_an_equals_sign() -> None:
    assert factors("mine/rule=a=b") == {"rule": "a=b"}
