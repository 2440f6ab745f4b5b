"""Small tables of answers, written as what each prompt's options were given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.tables import schema


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt and what was said to it. `probs` by option index; None: no answer."""

    item_id: str
    side: str
    permutation: tuple[int, ...]
    probs: tuple[float, ...] | None
    trial: int = 0
    error: str | None = None
    label_mass: float | None = 0.9
    variant: str = "direct"
    language: str = "en"
    domain: str = "Opinion"

    @property
    def prompt_id(self) -> str:
        order = "".join(map(str, self.permutation))
        return f"{self.item_id}-{self.side}-{self.variant}-{self.language}-{order}"


@dataclass(frozen=True, slots=True)
class Tables:
    answers: pa.Table
    prompts: pa.Table
    items: pa.Table

    def lazy(self) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        return pl.DataFrame(self.answers).lazy(), pl.DataFrame(self.prompts).lazy()


@dataclass(frozen=True, slots=True)
class ItemFacts:
    item_id: str
    domain: str = "Opinion"
    num_options: int = 2
    correct_option: int | None = None
    flags: tuple[str, ...] = ()


def log(prob: float) -> float:
    return math.log(prob) if prob > 0 else -1000.0


def build(asked: Sequence[Asked], items: Sequence[ItemFacts] = (), *, checkpoint: str = "c", digest: str = "d1") -> Tables:
    """Answers, prompts and items as they stand in a run. Items that are not described are made up from the prompts."""
    answers = [
        {
            "checkpoint_id": checkpoint,
            "checkpoint_digest": digest,
            "prompt_id": one.prompt_id,
            "trial": one.trial,
            "option_logprobs": None if one.probs is None else [log(prob) for prob in one.probs],
            "label_mass": None if one.probs is None else one.label_mass,
            "text": "A",
            "error": one.error,
        }
        for one in asked
    ]
    prompts = {
        one.prompt_id: {
            "prompt_id": one.prompt_id,
            "item_id": one.item_id,
            "domain": one.domain,
            "side": one.side,
            "variant": one.variant,
            "language": one.language,
            "permutation": list(one.permutation),
            "labels": ["A", "B", "C", "D"][: len(one.permutation)],
            "messages": [{"role": "user", "content": "?"}],
            "mode": "score",
        }
        for one in asked
    }
    described = items or [ItemFacts(one.item_id, one.domain, len(one.permutation)) for one in {one.item_id: one for one in asked}.values()]
    item_rows = [
        {
            "item_id": item.item_id,
            "domain": item.domain,
            "num_options": item.num_options,
            "correct_option": item.correct_option,
            "flags": list(item.flags),
            "record": "{}",
        }
        for item in described
    ]
    return Tables(
        pa.Table.from_pylist(answers, schema=schema.ANSWERS),
        pa.Table.from_pylist(list(prompts.values()), schema=schema.PROMPTS),
        pa.Table.from_pylist(item_rows, schema=schema.ITEMS),
    )


@pytest.fixture(scope="session")
def ask() -> type[Asked]:
    return Asked


@pytest.fixture(scope="session")
def item() -> type[ItemFacts]:
    return ItemFacts


@pytest.fixture(scope="session")
def tables() -> Callable[..., Tables]:
    return build


@pytest.fixture(scope="session")
def ten() -> Tables:
    """Ten answers to three items, worked by hand:

    - a: words say 0 in both orders; deeds do 1, then 0, which is the last label both times.
    - b: words tie, then say 1 (the first label); deeds do 1 in both orders.
    - c: one order; words tie, deeds have no answer.
    """
    asked = [
        Asked("a", "word", (0, 1), (0.8, 0.2), label_mass=1.0),
        Asked("a", "word", (1, 0), (0.6, 0.4), label_mass=0.8),
        Asked("a", "deed", (0, 1), (0.3, 0.7), label_mass=0.6),
        Asked("a", "deed", (1, 0), (0.9, 0.1), label_mass=0.4),
        Asked("b", "word", (0, 1), (0.5, 0.5), domain="EthV"),
        Asked("b", "word", (1, 0), (0.2, 0.8), domain="EthV"),
        Asked("b", "deed", (0, 1), (0.1, 0.9), domain="EthV"),
        Asked("b", "deed", (1, 0), (0.3, 0.7), domain="EthV"),
        Asked("c", "word", (0, 1), (0.5, 0.5), domain="EthV"),
        Asked("c", "deed", (0, 1), None, error="the prompt is too long", domain="EthV"),
    ]
    items = [
        ItemFacts("a", correct_option=0),
        ItemFacts("b", "EthV", correct_option=0, flags=("repeated-option",)),
        ItemFacts("c", "EthV", correct_option=1),
    ]
    return build(asked, items)
