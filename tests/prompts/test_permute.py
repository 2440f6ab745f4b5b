from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wdct_dist.config.schema import Orders
from wdct_dist.prompts.permute import PaperDraws, by_option, permutations


def orders_of(orders: Orders, num_options: int, **changes: object) -> tuple[tuple[int, ...], ...]:
    given: dict[str, object] = {"item_id": "one", "side": "word", "order_seed": 0, **changes}
    return permutations(orders, num_options, **given)  # type: ignore[arg-type]


def test_rotations_show_every_option_at_every_label_once() -> None:
    for k in range(2, 7):
        assert all(sorted(shown) == list(range(k)) for shown in zip(*orders_of(Orders.rotations, k), strict=True))


def test_all_orders_are_all() -> None:
    assert set(orders_of(Orders.all, 4)) == set(itertools.permutations(range(4)))


def test_a_random_order_is_of_its_item_side_and_seed_alone() -> None:
    drawn = {
        (item, side, seed): orders_of(Orders.random, 6, item_id=item, side=side, order_seed=seed)
        for item in ("one", "two")
        for side in ("word", "deed")
        for seed in (0, 1)
    }
    assert len(set(drawn.values())) == 8
    assert orders_of(Orders.random, 6, item_id="two", side="deed", order_seed=1) == drawn["two", "deed", 1]


@given(st.permutations(range(6)))
def test_a_permutation_is_undone_exactly(order: list[int]) -> None:
    options = [f"option {i}" for i in range(6)]
    assert by_option([options[i] for i in order], tuple(order)) == tuple(options)


@pytest.mark.parametrize("num_items", [1, 2, 1225])
def test_the_paper_draws_are_one_generator_over_both_passes(num_items: int) -> None:
    generator = random.Random(42)
    word = [generator.random() < 0.5 for _ in range(num_items)]
    deed = [generator.random() < 0.5 for _ in range(num_items)]
    draws = PaperDraws(num_items)
    assert [draws.at(place) for place in range(num_items)] == [{"word": said, "deed": done} for said, done in zip(word, deed, strict=True)]


def test_items_that_are_not_asked_have_drawn_too() -> None:
    every = PaperDraws(10)
    all_places = [every.at(place) for place in range(10)]
    some = PaperDraws(10)
    assert [some.at(place) for place in (1, 4, 9)] == [all_places[place] for place in (1, 4, 9)]
