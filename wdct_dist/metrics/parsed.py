"""What replies say: the option that generated text chooses, beside the one that its probabilities choose.

Derived from `text` as the engine wrote it, so that a better parser (`prompts/parse`) costs no engine time. Only prompts that let the
engine generate several tokens (`reply_tokens`) have a reply: one token has no room to explain or to refuse.

    replies         the answers of such prompts, with what they are read by
    parse_answers   adds `reply_status` and `parsed_option`
    with_replies    puts both beside the derived answers; in the variant `paper`, and without probabilities, they are the answers
"""

from __future__ import annotations

from typing import Any, get_args

import polars as pl

from wdct_dist.metrics.derive import PARSE_STATUS
from wdct_dist.metrics.ratio import Ratio, both_sides, pooled
from wdct_dist.prompts.option_lines import read_option_lines
from wdct_dist.prompts.parse.paper import is_paper_refusal, parse_paper
from wdct_dist.prompts.parse.verdict import Parsed, ParseStatus, parse_reply

REPLY_STATUSES: tuple[str, ...] = get_args(ParseStatus)
REPLY_STATUS = pl.Enum(REPLY_STATUSES)

PAPER = "paper"
"""The variant whose answers are what its text says; its probabilities count for PCS alone."""

PAPER_LABELS = ["A", "B"]

REFUSALS = ("content_filter", "refusal")
"""Finish reasons by which a server says that the model refused, or that its reply was kept back."""


def replies(answers: pl.LazyFrame, prompts: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each answer with generated text, in any order.

    `answers` and `prompts` have the columns of `schema.ANSWERS` and `schema.PROMPTS`. Columns: `checkpoint_id`, `prompt_id`, `trial`,
    `item_id`, `side`, `variant`, `language`, `permutation`, `labels`, `text`, `option_texts` (list, as shown, in the order of the
    labels; empty where the prompt does not show them line by line) and `begun`: how the reply was begun for the model, or null.
    """
    message = pl.col("messages").list.last().struct
    asked = pl.col("messages").list.filter(pl.element().struct.field("role") == "user").list.last().struct.field("content")
    begun = pl.when(pl.col("mode") == "reason").then("answer_cue").when(message.field("role") == "assistant").then(message.field("content"))
    replied = prompts.filter(pl.col("reply_tokens") > 1).select(
        "prompt_id",
        "item_id",
        "side",
        "variant",
        "language",
        "permutation",
        "labels",
        option_texts=pl.struct(asked.alias("asked"), "labels").map_batches(
            _option_texts, return_dtype=pl.List(pl.String), is_elementwise=True
        ),
        begun=begun,
    )
    said = answers.filter(pl.col("error").is_null() & pl.col("text").is_not_null())
    return said.select("checkpoint_id", "prompt_id", "trial", "text", "finish_reason").join(replied, on="prompt_id")


def parse_answers(answers: pl.LazyFrame) -> pl.LazyFrame:
    """Adds `reply_status` (one of `REPLY_STATUSES`) and `parsed_option` (Int8, option index, null unless the status is `ok`).

    `answers` needs `text`, `begun`, `labels`, `permutation`, `option_texts`, `language`, `variant` and `finish_reason`, as `replies`
    returns them. A server's own word that the model refused (`REFUSALS`) comes before its text. The
    reply is what was begun for the model and what it went on with; in the variant `paper` the published rules read the latter alone.
    Not `parse_status`: that is the status of the answer that is read from the probabilities (`derive`).
    """
    needed = pl.struct("text", "begun", "labels", "option_texts", "language", "variant", "finish_reason")
    parsed = needed.map_batches(_parse, return_dtype=pl.Struct({"reply_status": REPLY_STATUS, "place": pl.Int8}), is_elementwise=True)
    return (
        answers.with_columns(parsed=parsed)
        .unnest("parsed")
        .with_columns(parsed_option=pl.col("permutation").list.get(pl.col("place")).cast(pl.Int8))
        .drop("place")
    )


def with_replies(derived: pl.LazyFrame, parsed: pl.LazyFrame) -> pl.LazyFrame:
    """The derived answers with what their replies say.

    `derived` as `derive` returns it, `parsed` as `parse_answers` does, for the same checkpoint. Columns that are added or changed:

    - `read`: whether there is an answer to be read, in the reply where there is one, else in the probabilities.
    - `refused`: whether the reply declines; null where there is no reply.
    - `agrees`: whether the reply chooses the most probable option; null unless both choose one (a tie chooses none).
    - `shares`: all on `parsed_option` where the reply is the answer: in the variant `paper`, and where the engine gave no log-probabilities
      that decide. Without a `parsed_option` the status is then `refused` or `unreadable` and the other columns are null.
    - `by_share`: also true there, and in the variant `paper`.
    """
    decides = pl.col("variant") == PAPER
    beside = parsed.select("prompt_id", "trial", "reply_status", "parsed_option", decides=decides)
    one_hot = (pl.int_ranges(0, "num_options") - pl.col("parsed_option")).list.eval((pl.element() == 0).cast(pl.Float64))
    chosen = pl.col("reply_status") == "ok"
    has_reply = pl.col("reply_status").is_not_null()
    alone = has_reply & pl.col("silent") & (pl.col("parse_status") == "invalid")
    overruled = (pl.col("decides").fill_null(False) & (pl.col("parse_status") == "ok")) | alone
    return (
        derived.join(beside, on=["prompt_id", "trial"], how="left")
        .with_columns(
            read=pl.coalesce(chosen, pl.col("parse_status") == "ok"),
            refused=pl.when(has_reply).then(pl.col("reply_status") == "refusal"),
            by_share=pl.col("by_share") | pl.col("decides").fill_null(False) | alone,
            agrees=pl.when(chosen & (pl.col("parse_status") == "ok") & ~pl.col("tie")).then(
                pl.col("shares").list.get(pl.col("parsed_option"), null_on_oob=True) == 1
            ),
            parse_status=pl.when(overruled & (pl.col("reply_status") == "refusal"))
            .then(pl.lit("refused", PARSE_STATUS))
            .when(overruled & ~chosen)
            .then(pl.lit("unreadable", PARSE_STATUS))
            .when(alone)
            .then(pl.lit("ok", PARSE_STATUS))
            .otherwise("parse_status"),
            shares=pl.when(overruled).then(pl.when(chosen).then(one_hot)).otherwise("shares"),
            tie=pl.when(overruled).then(pl.when(chosen).then(pl.lit(False))).otherwise("tie"),
            probs=pl.when(~overruled | chosen).then("probs"),
            label_mass=pl.when(~overruled | chosen).then("label_mass"),
        )
        .drop("reply_status", "parsed_option", "decides", "silent")
    )


COUNTS: dict[str, pl.Expr] = {
    "num_read": pl.col("read").sum(),
    "num_agreeing": pl.col("agrees").sum(),
    "num_compared": pl.col("agrees").count(),
}
"""Counts of an item's prompts on a side, over its orders; `num_refused` and `num_refusable` are those of `sides.over_orders`."""


METRICS: dict[str, Ratio] = {
    "parsed_agreement": pooled(both_sides("num_agreeing"), both_sides("num_compared")),
}
"""Of the replies that choose an option where the probabilities do too, the share that choose the same; every reply weighs the same.

`parse_rate` and `refusal_rate` are in `quality`.
"""


class ReplyTally:
    """How many replies have which status, and a sample of those that choose no option; filled slice by slice."""

    def __init__(self, sample_size: int = 5) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        """By checkpoint, then by status."""
        self.sample = pl.DataFrame()
        """At most `sample_size` replies of each status but `ok`, all columns of `parse_answers`."""
        self._sample_size = sample_size

    def add(self, parsed: pl.DataFrame) -> None:
        """`parsed` as `parse_answers` returns it. No reply may come twice."""
        for checkpoint_id, status, count in parsed.group_by("checkpoint_id", "reply_status").len().iter_rows():
            mine = self.counts.setdefault(checkpoint_id, dict.fromkeys(REPLY_STATUSES, 0))
            mine[status] += count
        # `prompt_id` is a hash: the smallest are a random sample of the prompts, the same whatever shards the answers come in.
        order = ["prompt_id", "trial", "checkpoint_id"]
        joined = pl.concat([self.sample, parsed.filter(pl.col("reply_status") != "ok")], how="diagonal")
        self.sample = joined.sort(order).group_by("reply_status", maintain_order=True).head(self._sample_size).sort("reply_status", *order)


def _option_texts(prompts: pl.Series) -> pl.Series:
    read = [list(read_option_lines(one["asked"] or "", one["labels"])) for one in prompts]
    return pl.Series(read, dtype=pl.List(pl.String))


def _parse(rows: pl.Series) -> pl.Series:
    parsed = [_parse_one(row) for row in rows]
    return pl.DataFrame(
        {"reply_status": [one.status for one in parsed], "place": [one.place for one in parsed]},
        schema={"reply_status": REPLY_STATUS, "place": pl.Int8},
    ).to_struct(rows.name)


def _parse_one(row: dict[str, Any]) -> Parsed:
    text, begun, labels = row["text"], row["begun"], row["labels"]
    if row["finish_reason"] in REFUSALS:
        return Parsed(None, "refusal")
    if row["variant"] == PAPER and labels == PAPER_LABELS:
        return _parse_paper(text)
    if begun is not None and text.strip():
        # a token without its blank: `My answer is` and `B`
        blank = " " if begun[-1:].isalnum() and text[:1].isalnum() and text.isascii() else ""
        text = begun + blank + text
    return parse_reply(text, labels=tuple(labels), options=tuple(row["option_texts"]), language=row["language"])


def _parse_paper(text: str) -> Parsed:
    label = parse_paper(text)
    if label is not None:
        return Parsed(PAPER_LABELS.index(label), "ok", PAPER)
    if not text.strip():
        return Parsed(None, "empty")
    return Parsed(None, "refusal" if is_paper_refusal(text) else "unparsed")
