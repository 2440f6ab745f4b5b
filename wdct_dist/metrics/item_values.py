"""What an item adds to a comparison: its measures as the mean over its trials, and one decision whether words and deeds match."""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.exact_sum import exact_mean
from wdct_dist.metrics.factors import family
from wdct_dist.metrics.parsed import PAPER
from wdct_dist.metrics.prob_lists import answer_shares, as_lists, mean_by_option, one_minus_jsd, same_option

METRICS = ("cs", "cs_debiased", "pcs", "pcs_debiased")
"""What is compared: names as in the summary, an item's value is what it adds to the mean there."""

ASKING = ["checkpoint_id", "variant", "language"]
PROBS = ["word_probs", "deed_probs"]
ANSWERS = ["word_answer", "deed_answer"]


def said(side: str) -> pl.Expr:
    """List of k that says which option a side's answer is: the largest entry, as in `{side}_option` of scores/items.arrow.

    The option probabilities where they are the answer. Where the text is (the variant `paper`, and engines that give no probabilities)
    1 at its option; a tie of two options is shared evenly. Of more than two the table does not say which ones tie: null, as without
    an answer.
    """
    probs, option, tie = (pl.col(f"{side}_{name}") for name in ("probs", "option", "tie"))
    places = pl.int_ranges(0, "num_options")
    chosen = (places - option).list.eval((pl.element() == 0).cast(pl.Float64))
    both = (places * 0).list.eval(pl.element() + 0.5)
    by_text = (pl.col("variant") == PAPER) | probs.is_null()
    text = pl.when(option.is_not_null()).then(chosen).when(tie & (pl.col("num_options") == 2)).then(both)
    return pl.when(by_text).then(text).otherwise(probs)


def are_by_text(scores: pl.LazyFrame) -> bool:
    """Whether the text is the answer anywhere in `scores`; where it is not, `said` is the option probabilities themselves."""
    sides = [
        pl.col(f"{side}_probs").is_null() & (pl.col(f"{side}_option").is_not_null() | pl.col(f"{side}_tie").fill_null(False))
        for side in ("word", "deed")
    ]
    any_is = pl.any_horizontal(pl.col("variant") == PAPER, *sides).any()
    return bool(scores.select(any_is).collect(engine="streaming").item())


def item_values(scores: pl.LazyFrame, max_options: int) -> pl.LazyFrame:
    """One row for each checkpoint, variant, language and item: `METRICS`, `matched`, `word_probs`, `deed_probs`; in any order.

    `scores` has the columns of `schema.SCORES_ITEMS`; no item has more than `max_options` options.

    - The metrics are means over the trials that have a value; null where none has.
    - `word_probs` and `deed_probs` are means over orders and trials.
    - `matched` (bool): whether the answers are the same, which with one trial is `match_debiased`: the most probable options of
      these, or what most trials say where the text is the answer (`said`). Null where a side has no answer, and where a tie leaves
      the match open.
    """
    answers, lists = PROBS, PROBS
    if are_by_text(scores):  # else there are half as many lists to go through
        scores = scores.with_columns(word_answer=said("word"), deed_answer=said("deed"))
        answers, lists = ANSWERS, [*PROBS, *ANSWERS]
    word, deed = (answer_shares(pl.col(side)) for side in answers)
    values = scores.with_columns(cs=pl.col("match"), cs_debiased=same_option(word, deed)).select(*ASKING, "item_id", *lists, *METRICS)
    means = values.group_by(*ASKING, "item_id").agg(
        *(exact_mean(pl.col(metric)) for metric in METRICS),
        *mean_by_option(lists, max_options),
    )
    return _decided(means.with_columns(as_lists(lists, max_options)), answers).select(*ASKING, "item_id", *METRICS, *PROBS, "matched")


def family_values(values: pl.LazyFrame, variants: list[str], max_options: int) -> pl.LazyFrame:
    """The families among `variants` as one way of asking each: rows as of `item_values`, with the family's name for a variant.

    `cs` and `pcs` are means over the members that have a value. `cs_debiased`, `pcs_debiased` and `matched` are those of the
    probabilities averaged over the members that have an answer: what the checkpoint says when nobody fixes how it is asked.
    """
    families = {variant: name for variant in variants if (name := family(variant)) is not None}
    members = values.filter(pl.col("variant").is_in(list(families))).with_columns(
        pl.col("variant").replace_strict(families, return_dtype=pl.String)
    )
    means = members.group_by(*ASKING, "item_id").agg(
        exact_mean(pl.col("cs")), exact_mean(pl.col("pcs")), *mean_by_option(PROBS, max_options)
    )
    word, deed = (pl.col(side) for side in PROBS)
    averaged = means.with_columns(as_lists(PROBS, max_options)).with_columns(
        cs_debiased=same_option(answer_shares(word), answer_shares(deed)), pcs_debiased=one_minus_jsd(word, deed)
    )
    return _decided(averaged, PROBS).select(*ASKING, "item_id", *METRICS, *PROBS, "matched")


def _decided(values: pl.LazyFrame, answers: list[str]) -> pl.LazyFrame:
    expected = same_option(*(answer_shares(pl.col(side)) for side in answers))
    return values.with_columns(matched=pl.when(expected == 1).then(pl.lit(True)).when(expected == 0).then(pl.lit(False)))
