"""Option orders, and undoing them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wdct_dist.config.schema import Orders
from wdct_dist.prompts.permute import by_option, permutations


def orders(kind: Orders, num_options: int, seed: int = 0, item_id: str = "i") -> list[tuple[int, ...]]:
    return permutations(kind, num_options, item_id=item_id, side="word", order_seed=seed)


def test_rotations_show_every_option_once_at_every_label() -> None:
    found = orders(Orders.rotations, 3)
    assert found == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    assert all(sorted(order[place] for order in found) == [0, 1, 2] for place in range(3))


@pytest.mark.parametrize(("kind", "count"), [(Orders.as_given, 1), (Orders.rotations, 4), (Orders.all, 24), (Orders.random, 1)])
def test_the_number_of_orders(kind: Orders, count: int) -> None:
    assert len(orders(kind, 4)) == count


def test_random_orders_follow_the_seed_and_the_item_alone() -> None:
    drawn = [orders(Orders.random, 5, item_id=f"i{number}")[0] for number in range(50)]
    assert drawn == [orders(Orders.random, 5, item_id=f"i{number}")[0] for number in range(50)]
    assert len(set(drawn)) > 30
    assert drawn != [orders(Orders.random, 5, seed=1, item_id=f"i{number}")[0] for number in range(50)]


@given(st.integers(2, 6).flatmap(lambda count: st.permutations(range(count))))
def test_a_permutation_is_undone_exactly(permutation: list[int]) -> None:
    shown = [f"option {option}" for option in permutation]
    assert by_option(shown, tuple(permutation)) == tuple(f"option {option}" for option in range(len(permutation)))


def test_all_orders_are_distinct() -> None:
    assert len(set(orders(Orders.all, 5))) == math.factorial(5)
