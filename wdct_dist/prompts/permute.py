"""Option orders. A permutation says which option is shown at label i; it is stored with the prompt and undone in `by_option` alone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from wdct_dist.config.schema import Orders
from wdct_dist.errors import ConfigError
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import Item, Side

Value = TypeVar("Value")
Permutation = tuple[int, ...]
ItemOrders = Mapping[Side, tuple[Permutation, ...]]
"""The orders in which each side of an item is asked."""

MOST_ORDERS = 50_000
"""Orders of one question with `orders: all`: 8 options have 40,320, 9 have 362,880, more prompts than whole item sets have."""

PAPER_SEED = 42
"""Seed of the published evaluation (`--seed` in eval/test_local_models.py of icip-cas/Word-Deed-Consistency-Test, commit 63cba03)."""


def permutations(
    orders: Orders, num_options: int, *, item_id: str, side: Side, order_seed: int, swap: bool = False
) -> tuple[Permutation, ...]:
    """The orders in which a question with `num_options` options is asked; `all` gives k! of them.

    `swap` is the published draw for this question; it matters to `paper` alone.
    """
    as_given = tuple(range(num_options))
    match orders:
        case Orders.rotations:
            return tuple(as_given[shift:] + as_given[:shift] for shift in range(num_options))
        case Orders.all:
            return tuple(itertools.permutations(as_given))
        case Orders.as_given:
            return (as_given,)
        case Orders.random:
            # seeded by what it is drawn for, so that leaving an item out changes no other item's order
            generator = random.Random(stable_hash([order_seed, item_id, side]))
            return (tuple(generator.sample(as_given, num_options)),)
        case Orders.paper:
            assert num_options == 2, "the published draws swap two options"
            return ((1, 0) if swap else (0, 1),)


def require_few_orders(orders: Orders, items: Iterable[Item]) -> None:
    """Raise `ConfigError` if an item has so many options that all of their orders cannot be asked."""
    if orders is not Orders.all:
        return
    for item in items:
        if (count := math.factorial(item.num_options)) > MOST_ORDERS:
            number = f"{2 * count:,}" if item.num_options <= 20 else f"{2 * count:.1e}" if item.num_options <= 150 else "countless"
            raise ConfigError(
                f"orders: all asks item {item.item_id}, which has {item.num_options} options, in {number} prompts for each checkpoint, "
                "variant and language; allowed are items with up to 8 options. Set orders to rotations "
                f"({2 * item.num_options} prompts) or random (2 prompts), or leave such items out (data.domains)."
            )


class PaperDraws:
    """The published swaps: one draw for each item's word question in file order, then one for each item's deed question.

    One generator, seeded with 42, draws for both passes (load_data in eval/load_data.py of the paper's repository; swap where the
    draw is under 0.5). Two generators stand here, the second moved past the first pass, so that items can come one by one.
    Items with more than two options draw too, although they are left out of the protocol: the later ones depend on it.
    """

    def __init__(self, num_items: int) -> None:
        """`num_items`: all items of the file, also those that are not evaluated."""
        self._word = random.Random(PAPER_SEED)
        self._deed = random.Random(PAPER_SEED)
        for _ in range(num_items):
            self._deed.random()
        self._next = 0

    def at(self, place: int) -> Mapping[Side, bool]:
        """Whether each side of the item at `place` in the file (from 0) is swapped. Places come in ascending order."""
        assert place >= self._next
        for _ in range(place - self._next):
            self._word.random()
            self._deed.random()
        self._next = place + 1
        return {"word": self._word.random() < 0.5, "deed": self._deed.random() < 0.5}


def by_option(by_label: Sequence[Value], permutation: Permutation) -> tuple[Value, ...]:
    """Values in label order, brought to option order: the only place where a permutation is undone."""
    assert sorted(permutation) == list(range(len(by_label)))
    placed: dict[int, Value] = {option: by_label[place] for place, option in enumerate(permutation)}
    return tuple(placed[option] for option in range(len(by_label)))
