"""Option orders. A permutation says which option is shown at label i; it is stored with the prompt and undone in `by_option` alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

from wdct_dist.config.schema import Orders
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import Side

Value = TypeVar("Value")
Permutation = tuple[int, ...]


def permutations(orders: Orders, num_options: int, *, item_id: str, side: Side, order_seed: int) -> list[Permutation]:
    """The orders in which a question with `num_options` options is asked; `all` gives k! of them."""
    as_given = tuple(range(num_options))
    match orders:
        case Orders.rotations:
            return [as_given[shift:] + as_given[:shift] for shift in range(num_options)]
        case Orders.all:
            return list(itertools.permutations(as_given))
        case Orders.as_given:
            return [as_given]
        case Orders.random:
            # seeded by what it is drawn for, so that leaving an item out changes no other item's order
            generator = random.Random(stable_hash([order_seed, item_id, side]))
            return [tuple(generator.sample(as_given, num_options))]


def by_option(by_label: Sequence[Value], permutation: Permutation) -> tuple[Value, ...]:
    """Values in label order, brought to option order: the only place where a permutation is undone."""
    assert sorted(permutation) == list(range(len(by_label)))
    placed: dict[int, Value] = {option: by_label[place] for place, option in enumerate(permutation)}
    return tuple(placed[option] for option in range(len(by_label)))
