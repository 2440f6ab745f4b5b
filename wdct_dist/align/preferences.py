"""Preferences: of each item, the answer that a model is to give up and the one that it is to give in its place.

The baseline's answer on the target side is rejected, the opposite option is chosen: the other one of two, and of more than two the one
that the baseline holds least probable (drawn with the seed where several are equally improbable). Items without an answer, and those
whose answer is a tie, are left out and counted with the reason.

A part of the items is held out, of each domain the same share, and never trained on: whether a change reaches beyond the items that
caused it is seen there. Which ones is drawn item by item from the seed, so that both target sides and all models hold out the same
items, as far as each has answers to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from wdct_dist.errors import BadInput, DataError
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import SIDES, Item, Side
from wdct_dist.metrics.arrow_frame import polars_schema, write_frame
from wdct_dist.metrics.item_answers import item_answers
from wdct_dist.metrics.sides import TIE_TOLERANCE
from wdct_dist.tables import schema
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.storage import Store

NAME = "preferences.arrow"
SCHEMA = polars_schema(schema.PREFERENCES)

TRAIN, HELD_OUT = "train", "held_out"

TIED = "the baseline's answer is a tie"
NO_PROBABILITIES = "more than two options, and no probabilities that tell the least probable one"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a baseline's answers come to, item by item."""

    table: pl.DataFrame
    """Columns of `schema.PREFERENCES`, in the order of the items; those that are left out too."""

    def split(self, name: str) -> pl.DataFrame:
        """The rows of one split, `TRAIN` or `HELD_OUT`."""
        return self.table.filter(split=name)

    @property
    def target_side(self) -> Side:
        return "word" if self.table["target_side"][0] == "word" else "deed"

    @property
    def num_left_out(self) -> Counter[str]:
        """Items that are left out, by reason."""
        return Counter(self.table["left_out"].drop_nulls().to_list())

    def lines(self) -> list[str]:
        """What there is to know before training, in words."""
        num = {name: self.split(name).height for name in (TRAIN, HELD_OUT)}
        said = [f"{self.target_side} of {self.table['baseline_id'][0]}: {num[TRAIN]:,} items to train on, {num[HELD_OUT]:,} held out"]
        return said + [f"{count:,} items left out: {reason}" for reason, count in self.num_left_out.most_common()]


def find_preferences(
    item_scores: pl.DataFrame | pl.LazyFrame,
    items: Iterable[Item],
    checkpoint_id: str,
    target_side: str,
    *,
    domains: Collection[str] | None = None,
    held_out: float = 0.0,
    seed: int = 0,
    variant: str = "direct",
    language: str = "en",
) -> Preferences:
    """The preferences of `items`, in their order, from the answers that `checkpoint_id` gave to them.

    `item_scores` has the columns of SCORES_ITEMS. `domains`: only items of these, None for all. `held_out`: the share of the items of
    each domain that is not trained on; at least one item of each domain is trained on. Answers are those to `variant` in `language`;
    where there are several trials, what most of them say.

    Raises `BadInput` for a side, a share or a domain that there is not, for a checkpoint without scores, and where no item is left.
    """
    if target_side not in SIDES:
        raise BadInput(f"target_side: {target_side!r} came; allowed are {' and '.join(SIDES)}.")
    if not (math.isfinite(held_out) and 0 <= held_out < 1):
        raise BadInput(f"held_out: {held_out} came; allowed is a share from 0 on and under 1.")
    side: Side = "word" if target_side == "word" else "deed"
    other: Side = "deed" if side == "word" else "word"
    asked = item_scores.lazy().filter(
        pl.col("checkpoint_id") == checkpoint_id, pl.col("variant") == variant, pl.col("language") == language
    )
    place = {item.item_id: number for number, item in enumerate(items)}
    answers = item_answers(asked, side).filter(pl.col("item_id").is_in(list(place)))
    if answers.is_empty():
        there = item_scores.lazy().select("checkpoint_id", "variant", "language").unique(maintain_order=True).head(10).collect().rows()
        named = "; ".join(", ".join(row) for row in there) or "nothing"
        raise DataError(
            f"There are no baseline answers of {checkpoint_id} to the variant {variant} in {language}; scored is: {named}. Evaluate the "
            "baseline in that variant and language first."
        )
    if domains is not None:
        known = answers["domain"].unique(maintain_order=True).to_list()
        if absent := [name for name in domains if name not in known]:
            raise DataError(f"domains: no item is of {', '.join(absent)}; the baseline's items are of {', '.join(known)}.")
        answers = answers.filter(pl.col("domain").is_in(list(domains)))
    others = item_answers(asked, other).select("item_id", other_option="option")
    rows = answers.join(others, on="item_id", how="left").to_dicts()
    rows.sort(key=lambda row: place[row["item_id"]])
    targets = [_target(row, seed) for row in rows]
    usable = [(row["item_id"], row["domain"]) for row, target in zip(rows, targets, strict=True) if isinstance(target, int)]
    kept_back = _held_out(usable, held_out, seed)
    table = [
        (
            checkpoint_id,
            side,
            row["item_id"],
            row["domain"],
            None if isinstance(target, str) else HELD_OUT if row["item_id"] in kept_back else TRAIN,
            row["option"],
            None if isinstance(target, str) else target,
            row["other_option"],
            target if isinstance(target, str) else None,
        )
        for row, target in zip(rows, targets, strict=True)
    ]
    found = Preferences(pl.DataFrame(table, schema=SCHEMA, orient="row"))
    if not usable:
        reasons = "; ".join(f"{count:,} items: {reason}" for reason, count in found.num_left_out.most_common())
        raise DataError(f"No item of {checkpoint_id} has a baseline answer on the side {side} that can be turned round ({reasons}).")
    return found


def _target(row: dict[str, object], seed: int) -> int | str:
    """The option opposite to the baseline's answer, or why there is none."""
    option, probs = row["option"], row["probs"]
    if not isinstance(option, int):
        return TIED if row["tie"] else f"the baseline has no answer ({row['status']})"
    if row["num_options"] == 2:
        return 1 - option
    if not isinstance(probs, list) or None in probs:
        return NO_PROBABILITIES
    others = {place: prob for place, prob in enumerate(probs) if place != option}
    least = min(others.values())
    lowest = [place for place, prob in others.items() if prob <= least + TIE_TOLERANCE]
    return min(lowest, key=lambda place: stable_hash([seed, "target", row["item_id"], place]))


def _held_out(usable: Sequence[tuple[str, str]], share: float, seed: int) -> frozenset[str]:
    """The ids of the items (id, domain) that are not trained on: of each domain `share`, rounded, and never all."""
    by_domain: dict[str, list[str]] = {}
    for item_id, domain in usable:
        by_domain.setdefault(domain, []).append(item_id)
    found: set[str] = set()
    for ids in by_domain.values():
        number = min(len(ids) - 1, math.floor(share * len(ids) + 0.5))
        found.update(sorted(ids, key=lambda item_id: stable_hash([seed, "held out", item_id]))[:number])
    return frozenset(found)


def write_preferences(folder: Store, preferences: Preferences) -> None:
    """Writes preferences.arrow into `folder`, which is made where it is not there."""
    if folder.local is not None:
        folder.local.mkdir(parents=True, exist_ok=True)
    write_frame(folder, NAME, preferences.table, schema.PREFERENCES)


def read_preferences(folder: Store) -> Preferences:
    """The preferences that were written into `folder`; raises `StorageError` where there are none."""
    return Preferences(pl.DataFrame(read_table(folder, NAME)))
