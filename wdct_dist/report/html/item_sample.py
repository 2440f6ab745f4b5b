"""A sample of the items with all that was asked and said, for a person to read.

Of each kind of agreement and each checkpoint the same number, as far as there are any, drawn with a seed: rare kinds are shown as often
as frequent ones, so the sample says nothing about how frequent they are. Memory holds the numbers of the rows, not the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from wdct_dist.items.types import SIDES, Side
from wdct_dist.metrics.run_scores import ITEMS, answers_of
from wdct_dist.tables import items_file, prompts_file
from wdct_dist.tables.arrow_file import batches, scan
from wdct_dist.tables.storage import Store

SAMPLE_SIZE = 300
SAMPLE_SEED = 0

MOST_TEXT = 600
MOST_REASONING = 1200
"""Characters of a reply, and of a reasoning, that are shown."""

KINDS = {
    "differ": "words and deeds differ, in every order of the options",
    "order": "whether they differ depends on the order of the options",
    "tie": "a side is tied between options",
    "none": "a side has no answer",
    "same": "words and deeds are the same",
}
"""How words and deeds of an item stand to each other, worst first."""

KIND = (
    pl.when(pl.col("match").is_null())
    .then(pl.lit("none"))
    .when(pl.col("word_tie") | pl.col("deed_tie"))
    .then(pl.lit("tie"))
    .when(pl.col("match") == 0)
    .then(pl.lit("differ"))
    .when(pl.col("match") == 1)
    .then(pl.lit("same"))
    .otherwise(pl.lit("order"))
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Items that are shown, ready to be written as JSON."""

    num_rows: int
    """Rows of scores/items.arrow, of which `cases` are a sample."""
    cases: list[dict[str, Any]]
    questions: dict[str, dict[Side, Any]]
    """By language and item id, as one string: both sides with question and options."""


def draw_sample(store: Store, digests: Mapping[str, str], size: int = SAMPLE_SIZE, seed: int = SAMPLE_SEED) -> Sample:
    """At most `size` rows of scores/items.arrow with their replies. `digests`: digest by checkpoint id, of the answers that count."""
    num_rows, chosen = _choose(store, size, seed)
    rows = _rows(store, chosen)
    replies = _replies(store, digests, rows)
    worst_first = sorted(rows, key=lambda row: list(KINDS).index(row["kind"]))
    cases = [_case(row, replies) for row in worst_first]
    return Sample(num_rows, cases, _questions(store, rows))


def _choose(store: Store, size: int, seed: int) -> tuple[int, list[int]]:
    """How many rows scores/items.arrow has, and the numbers of those in the sample, in order."""
    generator = np.random.default_rng(seed)
    kept = pl.DataFrame()
    num_rows = 0
    groups = ["checkpoint_id", "kind"]
    for batch in map(pl.DataFrame, batches(store, ITEMS)):
        drawn = batch.select(
            "checkpoint_id",
            kind=KIND,
            row=pl.int_range(num_rows, num_rows + batch.height, dtype=pl.UInt64),
            draw=pl.Series(generator.random(batch.height)),
        )
        num_rows += batch.height
        kept = pl.concat([kept, drawn], how="diagonal").sort("draw").group_by(groups, maintain_order=True).head(size)
    if not num_rows:
        return 0, []
    ranked = kept.with_columns(rank=pl.col("draw").rank("ordinal").over(groups)).sort("rank", "draw").head(size)
    return num_rows, sorted(ranked["row"].to_list())


def _rows(store: Store, chosen: Iterable[int]) -> list[dict[str, Any]]:
    wanted = set(chosen)
    found: list[dict[str, Any]] = []
    start = 0
    for batch in map(pl.DataFrame, batches(store, ITEMS)):
        inside = [row in wanted for row in range(start, start + batch.height)]
        found += batch.filter(inside).with_columns(kind=KIND).to_dicts()
        start += batch.height
    return found


def _replies(store: Store, digests: Mapping[str, str], rows: list[dict[str, Any]]) -> dict[tuple[object, ...], list[dict[str, Any]]]:
    """What was said, order by order: by checkpoint, variant, language, trial, item and side."""
    asking = ["variant", "language", "item_id"]
    if not rows:
        return {}
    asked = pl.DataFrame(rows, infer_schema_length=None).select("checkpoint_id", "trial", *asking)
    prompts = (
        scan(store, prompts_file.NAME)
        .select("prompt_id", *asking, "side", "permutation", "labels")
        .join(asked.lazy().select(asking).unique(), on=asking, how="semi")
        .with_row_index("place")
        .collect(engine="streaming")
    )
    answers = answers_of(store, digests)
    found: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for checkpoint_id in answers.checkpoints():
        own = asked.filter(checkpoint_id=checkpoint_id).with_columns(pl.col("trial").cast(pl.UInt16)).join(prompts, on=asking)
        if own.is_empty():
            continue
        said = (
            answers.tables(checkpoint_id)
            .filter(pl.col("prompt_id").is_in(own["prompt_id"].unique().to_list()))
            .select("prompt_id", "trial", "text", "reasoning", "finish_reason", "error")
            .collect(engine="streaming")
        )
        for row in own.join(said, on=["prompt_id", "trial"], how="left").sort("place").iter_rows(named=True):
            key = (checkpoint_id, row["variant"], row["language"], row["trial"], row["item_id"], row["side"])
            found.setdefault(key, []).append(_reply(row))
    return found


def _reply(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt": row["prompt_id"],
        "shown": [[label, option] for label, option in zip(row["labels"], row["permutation"], strict=False)],
        "text": _cut(row["text"], MOST_TEXT),
        "reasoning": _cut(row["reasoning"], MOST_REASONING),
        "finish": row["finish_reason"],
        "error": row["error"],
    }


def _cut(text: str | None, most: int) -> str | None:
    if text is None or len(text) <= most:
        return text
    return f"{text[:most]} … ({len(text) - most:,} more characters are in the answers)"


def _case(row: Mapping[str, Any], replies: Mapping[tuple[object, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    name = (row["checkpoint_id"], row["variant"], row["language"], row["trial"], row["item_id"])
    case = {
        key: row[key] for key in ("checkpoint_id", "variant", "language", "trial", "item_id", "domain", "kind", "match", "pcs", "flags")
    }
    case["question"] = f"{row['language']} {row['item_id']}"
    for side in SIDES:
        case[side] = {
            "probs": row[f"{side}_probs"],
            "option": row[f"{side}_option"],
            "status": row[f"parse_status_{side}"],
            "mass": row[f"label_mass_{side}"],
            "replies": replies.get((*name, side), []),
        }
    return case


def _questions(store: Store, rows: list[dict[str, Any]]) -> dict[str, dict[Side, Any]]:
    languages: dict[str, set[str]] = {}
    for row in rows:
        languages.setdefault(row["item_id"], set()).add(row["language"])
    items = scan(store, items_file.NAME).filter(pl.col("item_id").is_in(list(languages))).select("item_id", "record").collect()
    found = {}
    for item_id, text in items.iter_rows():
        record = json.loads(text)
        for language in sorted(languages[item_id]):
            asked = record if language == "en" else record["translations"][language]
            found[f"{language} {item_id}"] = {side: asked[side] for side in SIDES}
    return found
