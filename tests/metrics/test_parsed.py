"""What replies say, beside what the probabilities say: ten replies worked by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.metrics.derive import derive
from wdct_dist.metrics.parsed import COUNTS, METRICS, REPLY_STATUSES, ReplyTally, parse_answers, replies, with_replies
from wdct_dist.tables import schema

OPTIONS = ["Yes, it should", "No, it should not"]

# name, permutation, probabilities by option, reply, what is expected: status, option, agrees
TEN: list[tuple[str, list[int], list[float] | None, str | None, str | None, int | None, bool | None]] = [
    ("first label, as given", [0, 1], [0.8, 0.2], "A", "ok", 0, True),
    ("first label, turned round", [1, 0], [0.3, 0.7], "A.", "ok", 1, True),
    ("another option than the likely one", [0, 1], [0.9, 0.1], "Answer: B", "ok", 1, False),
    ("the option's text", [1, 0], [0.9, 0.1], "Yes, it should.", "ok", 0, True),
    ("a tie", [0, 1], [0.5, 0.5], "B", "ok", 1, None),
    ("several", [0, 1], [0.6, 0.4], "A or B", "several", None, None),
    ("refusal", [0, 1], [0.6, 0.4], "I'm sorry, but I cannot answer.", "refusal", None, None),
    ("empty", [0, 1], [0.6, 0.4], " ", "empty", None, None),
    ("unparsed", [0, 1], [0.6, 0.4], "Well now", "unparsed", None, None),
    ("error", [0, 1], None, None, None, None, None),
]


def tables(variant: str = "direct", **prompt: Any) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Answers and prompts of the ten."""
    answers, prompts = [], []
    for name, permutation, probs, text, *_ in TEN:
        log = None if probs is None else pl.Series(probs).log().to_list()
        said = {"text": text, "option_logprobs": log} | ({"error": "too long"} if log is None else {"label_mass": 0.9})
        answers.append({"checkpoint_id": "c", "checkpoint_digest": "d", "prompt_id": name, "trial": 0, **said})
        lines = "\n".join(f"{label}. {OPTIONS[option]}" for label, option in zip("AB", permutation, strict=True))
        asked = {"role": "user", "content": f"Should it?\n{lines}\n\nAnswer with A or B."}
        about = {"item_id": name, "domain": "Opinion", "side": "word", "variant": variant, "language": "en", "permutation": permutation}
        how = {"labels": ["A", "B"], "messages": [asked], "mode": "score", "reply_tokens": 16}
        prompts.append({"prompt_id": name, **about, **how, **prompt})
    return (
        pl.DataFrame(pa.Table.from_pylist(answers, schema=schema.ANSWERS)).lazy(),
        pl.DataFrame(pa.Table.from_pylist(prompts, schema=schema.PROMPTS)).lazy(),
    )


def parsed(variant: str = "direct", **prompt: Any) -> pl.DataFrame:
    return parse_answers(replies(*tables(variant, **prompt))).collect(engine="streaming")


def one(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    return frame.row(by_predicate=pl.col("prompt_id") == name, named=True)


def test_each_of_ten_replies_is_read_and_its_permutation_undone() -> None:
    frame = parsed()
    assert frame.height == 9
    for name, _, _, _, status, option, _ in TEN[:9]:
        row = one(frame, name)
        assert (row["reply_status"], row["parsed_option"]) == (status, option), name


def test_the_options_are_those_that_the_prompt_showed() -> None:
    assert one(parsed(), "first label, turned round")["option_texts"] == ["No, it should not", "Yes, it should"]


def test_prompts_that_ask_for_one_token_have_no_reply() -> None:
    assert parsed(reply_tokens=None).height == 0
    assert parsed(reply_tokens=1).height == 0


def test_a_prompt_without_option_lines_is_read_by_its_labels_alone() -> None:
    frame = parsed(messages=[{"role": "user", "content": "Should it?"}])
    assert one(frame, "the option's text")["reply_status"] == "unparsed"
    assert one(frame, "first label, turned round")["parsed_option"] == 1


@pytest.mark.parametrize(
    "prompt",
    [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "My answer is"}]},
        {"mode": "reason", "answer_cue": "\nAnswer:", "messages": [{"role": "user", "content": "?"}]},
    ],
)
def test_a_reply_is_read_with_what_was_begun_for_it(prompt: dict[str, Any]) -> None:
    answers, prompts = tables(**prompt)
    said = answers.with_columns(text=pl.when(pl.col("text") == "A").then(pl.lit("a because")).otherwise("text"))
    assert one(parse_answers(replies(said, prompts)).collect(), "first label, as given")["parsed_option"] == 0
    alone = parse_answers(replies(said, prompts.with_columns(mode=pl.lit("score"), messages=pl.col("messages").list.head(1)))).collect()
    assert one(alone, "first label, as given")["reply_status"] == "unparsed"


def test_nothing_said_after_a_beginning_is_empty() -> None:
    frame = parsed(messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "The answer is A or"}])
    assert one(frame, "empty")["reply_status"] == "empty"


def derived(variant: str = "direct") -> pl.DataFrame:
    answers, prompts = tables(variant)
    return with_replies(derive(answers, prompts), parse_answers(replies(answers, prompts))).collect(engine="streaming")


def test_replies_stand_beside_the_probabilities_and_change_no_answer() -> None:
    frame = derived()
    plain = derive(*tables()).collect()
    shared = ["prompt_id", "parse_status", "shares", "probs", "tie", "label_mass"]
    assert frame.select(shared).sort("prompt_id").equals(plain.select(shared).sort("prompt_id"))
    for name, _, _, _, status, _, agrees in TEN:
        row = one(frame, name)
        assert row["agrees"] is agrees, name
        assert row["read"] is (status == "ok"), name
        assert row["refused"] is (None if status is None else status == "refusal"), name


def test_without_replies_the_probabilities_are_what_is_read() -> None:
    answers, prompts = tables(reply_tokens=None)
    frame = with_replies(derive(answers, prompts), parse_answers(replies(answers, prompts))).collect()
    assert frame["read"].sum() == 9
    assert frame["agrees"].null_count() == frame["refused"].null_count() == 10


def test_in_the_paper_variant_the_text_is_the_answer() -> None:
    frame = derived("paper")
    against = one(frame, "another option than the likely one")
    assert against["parse_status"] == "ok"
    assert against["shares"] == [0.0, 1.0]
    assert against["probs"] == pytest.approx([0.9, 0.1])
    assert against["agrees"] is False
    assert frame.filter("by_share").height == 9
    turned = one(frame, "first label, turned round")
    assert turned["shares"] == [0.0, 1.0]
    assert one(frame, "a tie")["shares"] == [0.0, 1.0]
    assert one(frame, "a tie")["tie"] is False


def test_in_the_paper_variant_what_is_not_read_has_no_answer_and_no_probabilities() -> None:
    frame = derived("paper")
    for name, status in {"refusal": "refused", "empty": "unreadable", "unparsed": "unreadable", "error": "error"}.items():
        row = one(frame, name)
        assert row["parse_status"] == status
        assert [row[column] for column in ("shares", "probs", "tie", "label_mass")] == [None] * 4


def test_the_paper_variant_is_read_by_the_published_rules() -> None:
    frame = parsed("paper")
    assert one(frame, "several")["parsed_option"] == 0  # any A counts
    assert one(frame, "the option's text")["reply_status"] == "unparsed"
    assert one(parsed("paper", labels=["1", "2"]), "several")["reply_status"] == "unparsed"


def test_the_agreement_counts_replies_that_choose_where_the_probabilities_do() -> None:
    counts = derived().select(**COUNTS)
    assert counts.row(0, named=True) == {"num_read": 5, "num_agreeing": 3, "num_compared": 4}
    word = counts.select(pl.all().name.prefix("word_"))
    deed = word.select(pl.all().name.replace("word_", "deed_"))
    ratio = METRICS["parsed_agreement"]
    assert pl.concat([word, deed], how="horizontal").select(ratio.numerator / ratio.denominator).item() == 6 / 8


def test_the_tally_counts_every_status_and_keeps_a_sample_of_each_that_chooses_nothing() -> None:
    tally = ReplyTally(sample_size=1)
    frame = parsed()
    for part in (frame.head(4), frame.slice(4)):
        tally.add(part)
    assert tally.counts == {"c": {"ok": 5, "several": 1, "refusal": 1, "empty": 1, "unparsed": 1}}
    assert tally.sample["reply_status"].to_list() == ["several", "refusal", "empty", "unparsed"]


def test_the_sample_does_not_depend_on_how_the_answers_are_cut() -> None:
    frame = pl.concat([parsed().with_columns(trial=pl.lit(trial, pl.UInt16)) for trial in range(5)])
    samples = []
    for size in (1, 7, 100):
        tally = ReplyTally(sample_size=2)
        for start in range(0, frame.height, size):
            tally.add(frame.slice(start, size))
        samples.append(tally.sample.select("prompt_id", "trial"))
    assert samples[0].height == 8
    assert samples[0].equals(samples[1])
    assert samples[0].equals(samples[2])


def test_the_statuses_are_those_of_the_parser() -> None:
    assert REPLY_STATUSES == ("ok", "several", "refusal", "empty", "unparsed")
