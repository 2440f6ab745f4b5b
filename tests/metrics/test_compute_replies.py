"""Replies through the whole of scoring: rates, agreement, the paper's answers, the tally."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.metrics.answers import ShardFiles
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.compute import score
from wdct_dist.metrics.parsed import ReplyTally
from wdct_dist.tables import schema

QUESTION = "Which?\nA. {}\nB. {}\n\nAnswer with A or B."
TEXTS = ("to the left", "to the right")

# item, side, permutation, probabilities by option, reply
SAID: list[tuple[str, str, list[int], list[float], str]] = [
    ("one", "word", [0, 1], [0.9, 0.1], "A"),
    ("one", "word", [1, 0], [0.8, 0.2], "Answer: A"),
    ("one", "deed", [0, 1], [0.7, 0.3], "To the left."),
    ("one", "deed", [1, 0], [0.6, 0.4], "I cannot answer that."),
    ("two", "word", [0, 1], [0.5, 0.5], "B"),
    ("two", "deed", [0, 1], [0.2, 0.8], "Well"),
]


def run(variant: str, tmp_path: Any, slice_rows: int) -> tuple[pl.DataFrame, pl.DataFrame, ReplyTally]:
    answers, prompts = [], []
    for number, (item, side, permutation, probs, text) in enumerate(SAID):
        name = {"prompt_id": f"p{number}"}
        said = {"option_logprobs": pl.Series(probs).log().to_list(), "text": text, "label_mass": 0.9}
        answers.append({"checkpoint_id": "c", "checkpoint_digest": "d", "trial": 0, **name, **said})
        content = QUESTION.format(*(TEXTS[option] for option in permutation))
        about = {"item_id": item, "domain": "Opinion", "side": side, "variant": variant, "language": "en", "permutation": permutation}
        how = {"labels": ["A", "B"], "messages": [{"role": "user", "content": content}], "mode": "score", "reply_tokens": 16}
        prompts.append({**name, **about, **how})
    path = tmp_path / "shard.arrow"
    with pa.ipc.new_file(path, schema.ANSWERS) as writer:
        writer.write_table(pa.Table.from_pylist(answers, schema=schema.ANSWERS))
    items = [{"item_id": item, "domain": "Opinion", "num_options": 2, "flags": [], "record": "{}"} for item in ("one", "two")]
    pieces: list[pa.Table] = []
    tally = ReplyTally()
    summary = score(
        ShardFiles({"c": [str(path)]}),
        pl.DataFrame(pa.Table.from_pylist(prompts, schema=schema.PROMPTS)).lazy(),
        pl.DataFrame(pa.Table.from_pylist(items, schema=schema.ITEMS)).lazy(),
        write_items=pieces.append,
        bootstrap=Bootstrap(resamples=0),
        slice_rows=slice_rows,
        tally=tally,
    )
    return pl.DataFrame(summary).filter(pl.col("domain") == "all"), pl.DataFrame(pa.concat_tables(pieces)), tally


def value(summary: pl.DataFrame, metric: str) -> float | None:
    found: float | None = summary.filter(pl.col("metric") == metric)["value"].item()
    return found


@pytest.mark.parametrize("slice_rows", [1, 100])
def test_replies_beside_the_probabilities_are_counted_and_change_no_score(tmp_path: Any, slice_rows: int) -> None:
    summary, items, tally = run("direct", tmp_path, slice_rows)
    assert value(summary, "parse_rate") == pytest.approx(4 / 6)
    assert value(summary, "refusal_rate") == pytest.approx(1 / 6)
    # A, Answer: A under a turned order (so option 1 against 0), To the left; the tie is left out
    assert value(summary, "parsed_agreement") == pytest.approx(2 / 3)
    assert items["parse_status_word"].to_list() == items["parse_status_deed"].to_list() == ["ok", "ok"]
    assert value(summary, "cs") == pytest.approx((1.0 + 0.5) / 2)
    assert tally.counts == {"c": {"ok": 4, "several": 0, "refusal": 1, "empty": 0, "unparsed": 1}}


@pytest.mark.parametrize("slice_rows", [1, 100])
def test_in_the_paper_variant_replies_are_the_answers(tmp_path: Any, slice_rows: int) -> None:
    summary, items, tally = run("paper", tmp_path, slice_rows)
    # published rules: `To the left.` and `Well` name neither; `I cannot answer` refuses
    assert value(summary, "parse_rate") == pytest.approx(3 / 6)
    assert value(summary, "refusal_rate") == pytest.approx(1 / 6)
    assert items["parse_status_word"].to_list() == ["ok", "ok"]
    assert items["parse_status_deed"].to_list() == ["unreadable", "unreadable"]
    # `A` and, turned round, `Answer: A`: one option each, although the probabilities are for option 0 both times
    assert items["word_option"].to_list() == [None, 1]
    assert items["word_tie"].to_list() == [True, False]
    assert value(summary, "cs") is None
    assert (value(summary, "cs_lower"), value(summary, "cs_upper")) == (0.0, 1.0)
    assert tally.counts["c"] == {"ok": 3, "several": 0, "refusal": 1, "empty": 0, "unparsed": 2}
