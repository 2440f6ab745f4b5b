"""Answers of APIs that show only some tokens, or none: what is sure is counted, and nothing is made up."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.compute import score
from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.parsed import parse_answers, replies, with_replies
from wdct_dist.tables import schema

Said = tuple[list[float] | None, list[float | None] | None, list[float] | None, str | None]
"""Option probabilities; or what was seen of them, and what they are at most; the reply's text."""

KNOWN: Said = ([0.8, 0.1], None, None, "A")
SURE: Said = (None, [0.9, None], [0.9, 0.01], "A")
OPEN: Said = (None, [0.4, None], [0.4, 0.5], "B")
TEXT: Said = (None, None, None, "B. Surely.")
MUTE: Said = (None, None, None, "Well now")


def logs(values: list[Any] | None) -> list[float | None] | None:
    return None if values is None else [None if value is None else math.log(value) for value in values]


def tables(said: dict[tuple[str, str], list[Said]], reply_tokens: int | None = 16) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Answers, prompts and items. `said` by item and side; one for each order, the first as given, the second turned round."""
    answers, prompts = [], []
    for (item_id, side), orders in said.items():
        for permutation, (probs, lower, upper, text) in zip([[0, 1], [1, 0]], orders, strict=False):
            prompt_id = f"{item_id}-{side}-{permutation[0]}"
            mass = sum(probs or [value or 0 for value in lower or []]) or None
            row = {"checkpoint_id": "c", "checkpoint_digest": "d", "prompt_id": prompt_id, "trial": 0, "text": text, "label_mass": mass}
            row |= {"option_logprobs": logs(probs), "option_lower": logs(lower), "option_upper": logs(upper)}
            answers.append(row)
            about = {"prompt_id": prompt_id, "item_id": item_id, "domain": "Opinion", "side": side, "variant": "direct", "language": "en"}
            how = {"permutation": permutation, "labels": ["A", "B"], "mode": "score", "reply_tokens": reply_tokens}
            prompts.append({**about, **how, "messages": [{"role": "user", "content": "?"}]})
    ids = dict.fromkeys(item_id for item_id, _ in said)
    items = [{"item_id": item_id, "domain": "Opinion", "num_options": 2, "flags": [], "record": "{}"} for item_id in ids]
    return (
        pa.Table.from_pylist(answers, schema=schema.ANSWERS),
        pa.Table.from_pylist(prompts, schema=schema.PROMPTS),
        pa.Table.from_pylist(items, schema=schema.ITEMS),
    )


def read(said: Said, reply_tokens: int | None = 16) -> dict[str, Any]:
    """What one answer comes to, with its reply."""
    answers, prompts, _ = (pl.DataFrame(table).lazy() for table in tables({("i", "word"): [said]}, reply_tokens))
    derived = derive(answers, prompts)
    if reply_tokens is not None:
        derived = with_replies(derived, parse_answers(replies(answers, prompts)))
    return derived.collect().row(0, named=True)


@pytest.mark.parametrize(
    ("said", "status", "shares", "has_probs"),
    [
        (KNOWN, "ok", [1.0, 0.0], True),
        (SURE, "ok", [1.0, 0.0], False),
        (OPEN, "ok", [0.0, 1.0], False),  # by its text
        (TEXT, "ok", [0.0, 1.0], False),
        (MUTE, "unreadable", None, False),
        ((None, [0.4, 0.4], [0.4, 0.41], "Well now"), "unreadable", None, False),
        ((None, [0.4, 0.4, None], [0.4, 0.4, 0.1], "Well now"), "unreadable", None, False),  # of another number of options
        ((None, [None, None], [0.1, 0.1], "I'm sorry, but I cannot answer."), "refused", None, False),
    ],
)
def test_each_kind_of_answer(said: Said, status: str, shares: list[float] | None, has_probs: bool) -> None:
    found = read(said)
    assert (found["parse_status"], found["shares"]) == (status, shares)
    assert (found["probs"] is not None) == has_probs
    assert found["by_share"] == (not has_probs)


def test_without_a_reply_to_read_what_is_not_sure_is_invalid() -> None:
    assert read(SURE, None)["parse_status"] == "ok"
    for said in (OPEN, TEXT, MUTE):
        found = read(said, None)
        assert (found["parse_status"], found["shares"], found["tie"]) == ("invalid", None, None)


def test_log_probabilities_that_are_no_answer_are_not_saved_by_the_text() -> None:
    assert read(([0.5, 0.3, 0.1], None, None, "A"))["parse_status"] == "invalid"


def scores(said: dict[tuple[str, str], list[Said]]) -> tuple[pl.DataFrame, dict[str, float | None]]:
    class Source:
        def checkpoints(self) -> list[str]:
            return ["c"]

        def tables(self, checkpoint_id: str) -> pl.LazyFrame:
            return pl.DataFrame(answers).lazy()

    answers, prompts, items = tables(said)
    pieces: list[pa.Table] = []
    summary = score(
        Source(),
        pl.DataFrame(prompts).lazy(),
        pl.DataFrame(items).lazy(),
        write_items=pieces.append,
        bootstrap=Bootstrap(resamples=0, seed=0, level=0.95),
    )
    overall = pl.DataFrame(summary).filter(pl.col("domain") == "all")
    return pl.DataFrame(pa.concat_tables(pieces)), dict(zip(overall["metric"], overall["value"], strict=True))


def test_cs_counts_what_is_sure_and_pcs_only_what_is_known() -> None:
    items, summary = scores(
        {
            ("known", "word"): [KNOWN, KNOWN],
            ("known", "deed"): [KNOWN, KNOWN],
            ("sure", "word"): [SURE, KNOWN],
            ("sure", "deed"): [KNOWN, KNOWN],
        }
    )
    assert items["match"].to_list() == [1.0, 1.0]
    assert items["match_debiased"].to_list() == [True, True]
    assert items["pcs"].to_list() == [1.0, None]
    assert items["pcs_debiased"].to_list() == [1.0, None]
    assert items["word_probs"].is_null().to_list() == [False, True]
    assert (summary["cs"], summary["pcs"], summary["parse_rate"]) == (1.0, 1.0, 1.0)


def test_where_the_server_gives_no_logprobs_cs_is_that_of_the_parsed_replies() -> None:
    # the words are B in both orders, which is option 1 and then option 0; the deeds have one answer, option 1
    items, summary = scores({("i", "word"): [TEXT, (None, None, None, "B")], ("i", "deed"): [TEXT, MUTE]})
    assert items["match"].to_list() == [0.5]
    assert items.select("word_option", "word_tie", "deed_option").row(0) == (None, True, 1)
    assert items.select("parse_status_word", "parse_status_deed").row(0) == ("ok", "partial")
    assert items["pcs"].to_list() == [None]
    assert (summary["cs"], summary["pcs"], summary["parse_rate"]) == (0.5, None, 0.75)
