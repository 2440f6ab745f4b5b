"""What an answer says: option probabilities, the option it chose, and whether it can be read at all.

Derived from what the engine wrote and never stored with it, so that a better rule costs no engine time.
"""

from __future__ import annotations

import polars as pl

PARSE_STATUSES = ("ok", "partial", "refused", "unreadable", "invalid", "error", "missing")
"""From best to worst.

- `ok`: there is an answer.
- `partial`: only of an item's side: some of its orders have an answer.
- `refused`, `unreadable`: kept for answers that are parsed from text.
- `invalid`: the engine gave log-probabilities that are no answer: none, too few, too many, missing or infinite ones. Where it gave none at
  all, a parsed reply is the answer (`parsed.with_replies`).
- `error`: the engine said why it has no answer.
- `missing`: planned, but not in the answers (the run is not finished).
"""

PARSE_STATUS = pl.Enum(PARSE_STATUSES)
SIDE = pl.Enum(("word", "deed"))


def derive(answers: pl.LazyFrame, prompts: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each prompt and each trial that the answers have: [num_prompts * num_trials].

    `answers` has the columns of `schema.ANSWERS`; `prompts` needs `prompt_id`, `side` and `permutation`, and its other columns
    are carried along, except the texts. Answers to prompts that are not in `prompts` are left out. Columns that are added:

    - `num_options`: k, the length of the permutation.
    - `parse_status`: one of `PARSE_STATUSES`; the columns that follow are null unless it is `ok`.
    - `probs`: list of k, softmax over the options' log-probabilities in float64, by option index.
    - `shares`: list of k, the answer: 1 at the most probable option. Exactly equal log-probabilities share it evenly, since a
      tie decided by position would count the order in which options are shown as an opinion.
    - `tie`: whether two or more options share the answer.
    - `label_mass`: as in `answers`.
    - `read`: whether there is an answer; `refused`, `agrees`: null. Where text was generated, `parsed.with_replies` sets them.
    - `by_share`: whether orders are put together by their answers and not by probabilities: where there are none.
    - `silent`: whether the engine gave no log-probabilities, and no error.

    An API that shows only some tokens gives bounds (`option_lower`, `option_upper`) where an option is not among them. Such a prompt has an
    answer where the option that was seen to be most probable is so whatever the bounds hide. Its `probs` are null: nothing is made up.

    Lists and not one column an option, so that items with different k go through at once: list arithmetic and an elementwise
    `list.eval` took 0.07 s for 2 million rows, against 0.86 s for k columns gathered into lists again.
    """
    known = ("option_logprobs", "option_lower", "option_upper", "label_mass", "error")
    said = answers.select("prompt_id", "trial", *known, answered=pl.lit(True))
    planned = prompts.drop("messages", "labels", strict=False).join(answers.select("trial").unique(), how="cross")
    logprobs = pl.col("option_logprobs")
    difference = pl.col("difference")
    weights = difference.list.eval(pl.element().exp())
    tops = difference.list.eval((pl.element() == 0).cast(pl.Float64))
    num_tops = tops.list.sum()
    return (
        planned.join(said, on=["prompt_id", "trial"], how="left")
        .with_columns(pl.col("side").cast(SIDE), num_options=pl.col("permutation").list.len().cast(pl.UInt8))
        .with_columns(parse_status=_parse_status())
        .with_columns(readable=pl.col("parse_status") == "ok", silent=_silent())
        # The largest becomes 0, so that exp neither overflows nor loses all options at once.
        .with_columns(difference=pl.when("readable").then(logprobs - logprobs.list.max()))
        .with_columns(
            label_mass=pl.when("readable").then("label_mass"),
            probs=weights / weights.list.sum(),
            shares=pl.coalesce(tops / num_tops, pl.when("readable").then(_may_be_top())),
            tie=pl.coalesce(num_tops > 1, pl.when("readable").then(pl.lit(False))),
            read="readable",
            refused=pl.lit(None, dtype=pl.Boolean),
            agrees=pl.lit(None, dtype=pl.Boolean),
            by_share=pl.col("readable") & pl.col("silent"),
        )
        .drop(*known[:3], "error", "answered", "readable", "difference")
    )


def _may_be_top() -> pl.Expr:
    """Of an API's bounds: list of k, 1 for each option that may be as probable as the one that was seen to be most probable, else 0."""
    best_seen = pl.col("option_lower").list.max()
    return (pl.col("option_upper") - best_seen).list.eval((pl.element() >= 0).cast(pl.Float64))


def _silent() -> pl.Expr:
    return pl.col("answered").fill_null(False) & pl.col("error").is_null() & pl.col("option_logprobs").is_null()


def _parse_status() -> pl.Expr:
    """The status of an answer that is read from its log-probabilities, whatever the mode; for text see `parsed.with_replies`."""
    logprobs = pl.col("option_logprobs")
    num_finite = logprobs.list.eval(pl.element().is_finite().cast(pl.UInt8)).list.sum()
    usable = (logprobs.list.len() == pl.col("num_options")) & (num_finite == pl.col("num_options"))
    lower, upper = pl.col("option_lower"), pl.col("option_upper")
    whole = (lower.list.len() == pl.col("num_options")) & (upper.list.len() == pl.col("num_options"))
    # one: the option that was seen to be most probable itself
    decided = logprobs.is_null() & whole & (_may_be_top().list.sum() == 1)
    return (
        pl.when(pl.col("answered").is_null())
        .then(pl.lit("missing"))
        .when(pl.col("error").is_not_null())
        .then(pl.lit("error"))
        .when(usable.fill_null(False) | decided.fill_null(False))
        .then(pl.lit("ok"))
        .otherwise(pl.lit("invalid"))
        .cast(PARSE_STATUS)
    )
