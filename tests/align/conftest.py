"""Made-up scores of a baseline, and the bundled items that they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.items.types import Item
from wdct_dist.tables import schema


@dataclass(frozen=True, slots=True)
class Said:
    """What a checkpoint answered to one item. None: no answer; "tie": a tie."""

    item: Item
    word: int | str | None
    deed: int | str | None
    probs: tuple[float, ...] | None = None
    """On both sides."""
    checkpoint_id: str = "base"
    trial: int = 0
    variant: str = "direct"


def make_scores(said: Sequence[Said]) -> pl.DataFrame:
    """The rows of scores/items.arrow, with those of its columns that alignment reads."""
    rows: list[dict[str, Any]] = []
    for one in said:
        row: dict[str, Any] = {
            "checkpoint_id": one.checkpoint_id,
            "variant": one.variant,
            "language": "en",
            "trial": one.trial,
            "item_id": one.item.item_id,
            "domain": one.item.domain,
            "num_options": one.item.num_options,
        }
        for side, answer in (("word", one.word), ("deed", one.deed)):
            even = [1 / one.item.num_options] * one.item.num_options
            row[f"{side}_option"] = answer if isinstance(answer, int) else None
            row[f"{side}_tie"] = None if answer is None else answer == "tie"
            row[f"parse_status_{side}"] = "error" if answer is None else "ok"
            row[f"{side}_probs"] = None if answer is None else list(one.probs or even)
        rows.append(row)
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=schema.SCORES_ITEMS))


@pytest.fixture(scope="session")
def said() -> type[Said]:
    return Said


@pytest.fixture(scope="session")
def scores() -> Callable[[Sequence[Said]], pl.DataFrame]:
    return make_scores


@pytest.fixture(scope="session")
def items() -> list[Item]:
    return [record.item for record in read_records(BUNDLED) if record.item is not None]


@pytest.fixture(scope="session")
def pairs_of_options(items: list[Item]) -> list[Item]:
    """The bundled items with two options."""
    return [item for item in items if item.num_options == 2]
