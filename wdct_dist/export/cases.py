"""A run as others log one: for each checkpoint and way of asking its items, each with all that was asked and said about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from wdct_dist.ids import slugs
from wdct_dist.items.types import SIDES, Side
from wdct_dist.metrics.run_scores import ITEMS, answers_of
from wdct_dist.prompts.types import ANSWER_SLOT
from wdct_dist.tables import items_file, prompts_file
from wdct_dist.tables.arrow_file import read_table, scan
from wdct_dist.tables.run_dir import SUMMARY
from wdct_dist.tables.storage import Store

LONGEST_NAME = 120
"""Characters of a file's or folder's name."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and what was said to it."""

    side: Side
    prompt_id: str
    shown: tuple[tuple[str, int], ...]
    """Each label with the index of the option that it stood before."""
    messages: tuple[tuple[str, str], ...]
    """Role and content; the model's own earlier answer is in its place."""
    text: str | None
    reasoning: str | None
    finish_reason: str | None
    error: str | None
    option_logprobs: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Case:
    """One item in one trial."""

    scores: Mapping[str, Any]
    """Its row of scores/items.arrow."""
    questions: Mapping[Side, tuple[str, tuple[str, ...]]]
    """Question and options of each side, in the language that it was asked in."""
    turns: tuple[Turn, ...]
    """Words first, order by order."""


@dataclass(frozen=True, slots=True)
class Way:
    """One checkpoint asked in one variant and language, with its rows of the summary."""

    checkpoint_id: str
    variant: str
    language: str
    task: str
    """Variant and language as one name of a file."""
    folder: str
    """The checkpoint as the name of a folder."""
    finished: bool
    """Whether its run is."""
    summary: tuple[Mapping[str, Any], ...]

    def figures(self, metric: str) -> dict[tuple[str, str], float]:
        """A metric by domain and `value`, `low` or `high`; without what is undefined."""
        ends = {"value": "value", "low": "ci_low", "high": "ci_high"}
        rows = [row for row in self.summary if row["metric"] == metric]
        return {(row["domain"], end): row[column] for row in rows for end, column in ends.items() if row[column] is not None}


def ways_of(store: Store, *, finished: bool) -> list[Way]:
    """Every way of asking that has items of its own; a family's members, not the family. Raises `StorageError` before there are scores."""
    summary = pl.DataFrame(read_table(store, SUMMARY))
    place = ["checkpoint_id", "variant", "language"]
    asked = scan(store, ITEMS).select(place).unique(maintain_order=True).collect()
    rows = summary.join(asked, on=place, how="semi", maintain_order="left")
    groups = {(str(one), str(variant), str(language)): own for (one, variant, language), own in rows.group_by(place, maintain_order=True)}
    folders = slugs((checkpoint_id for checkpoint_id, _, _ in groups), LONGEST_NAME)
    tasks = slugs((f"wdct {variant} {language}" for _, variant, language in groups), LONGEST_NAME)
    return [
        Way(checkpoint_id, variant, language, tasks[f"wdct {variant} {language}"], folders[checkpoint_id], finished, tuple(own.to_dicts()))
        for (checkpoint_id, variant, language), own in groups.items()
    ]


def cases_of(store: Store, digests: Mapping[str, str], way: Way) -> Iterator[Case]:
    """The cases of a way of asking, in the order of the items. Memory holds one way of asking. `digests`: by checkpoint id."""
    asked = {"variant": way.variant, "language": way.language}
    prompts = scan(store, prompts_file.NAME).filter(**asked).with_row_index("place").drop("variant", "language", "domain")
    answers = answers_of(store, digests).tables(way.checkpoint_id).drop("checkpoint_id")
    turns: dict[tuple[str, int], list[Turn]] = {}
    for row in answers.join(prompts, on="prompt_id").collect(engine="streaming").sort("trial", "place").iter_rows(named=True):
        turns.setdefault((row["item_id"], row["trial"]), []).append(_turn(row))
    records = dict(scan(store, items_file.NAME).select("item_id", "record").collect().iter_rows())
    for scores in scan(store, ITEMS).filter(checkpoint_id=way.checkpoint_id, **asked).collect(engine="streaming").iter_rows(named=True):
        item = json.loads(records[scores["item_id"]])
        sides = item if way.language == "en" else item["translations"][way.language]
        questions = {side: (str(sides[side]["question"]), tuple(sides[side]["options"])) for side in SIDES}
        said = turns.get((scores["item_id"], scores["trial"]), [])
        yield Case(scores, questions, tuple(sorted(said, key=lambda turn: SIDES.index(turn.side))))


def _turn(row: Mapping[str, Any]) -> Turn:
    messages = tuple((one["role"], row["said"] or "" if one["content"] == ANSWER_SLOT else one["content"]) for one in row["messages"])
    return Turn(
        row["side"],
        row["prompt_id"],
        tuple(zip(row["labels"], row["permutation"], strict=True)),
        messages,
        row["text"],
        row["reasoning"],
        row["finish_reason"],
        row["error"],
        None if row["option_logprobs"] is None else tuple(row["option_logprobs"]),
    )
