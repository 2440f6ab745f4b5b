"""Scores of a run from its answers: scores/items.arrow in a stream, and the summary.

Memory stays bounded however large the run: one checkpoint at a time, and of it one slice of the plan at a time. A slice holds
whole items with all their orders and trials, at most `slice_rows` answers. What stays of a slice is what its items add to each
metric (about 450 bytes an item), until the variant and language it belongs to is summed up. The answers are read once a slice, so
slices are not made smaller than memory asks for. Speed: 306,000 answers a second without intervals (2 cores, shared, one run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from wdct_dist.errors import RunDirError
from wdct_dist.metrics import consistency, probability, quality, stability
from wdct_dist.metrics.answers import AnswerSource
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.derive import SIDE, derive
from wdct_dist.metrics.order_pairs import over_pairs
from wdct_dist.metrics.parsed import ReplyTally, parse_answers, replies, with_replies
from wdct_dist.metrics.sides import over_orders, side_by_side, widen
from wdct_dist.metrics.summary import contributions, summarise
from wdct_dist.tables import schema

SLICE_ROWS = 500_000
"""Answers worked on at once. Measured with 2 million items (8 million answers): a peak of 3.6 GB, and 2.6 GB with half of it."""

KEYS = ("asked", "trial")
"""An item in a variant and language is one number here: its row in the table of what was asked."""

SPEC = ["variant", "language", "item_id"]


@dataclass(slots=True)
class _Plan:
    """What was asked. Prompts are read slice by slice; the last slice is kept, since mostly there is but one."""

    prompts: pl.LazyFrame
    asked: pl.DataFrame
    """One row for each variant, language and item: num_prompts, domain, num_options, correct_option, flags, suspicious."""
    domains: list[str]
    """In the order of the items."""
    has_replies: bool
    """Whether any prompt lets the engine generate text to parse."""
    kept: tuple[int, int, pl.DataFrame] | None = None

    def slices(self, num_trials: int, slice_rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of `asked`, each with at most `slice_rows` answers (or one item)."""
        start = rows = 0
        for stop, num_prompts in enumerate(self.asked["num_prompts"]):
            if rows and rows + num_prompts * num_trials > slice_rows:
                yield start, stop
                start, rows = stop, 0
            rows += num_prompts * num_trials
        if rows:
            yield start, self.asked.height

    def prompts_of(self, start: int, stop: int) -> pl.DataFrame:
        if self.kept is None or self.kept[:2] != (start, stop):
            self.kept = None
            chosen = self.asked.lazy().slice(start, stop - start).select(*SPEC, "asked")
            found = (
                self.prompts.select("prompt_id", *SPEC, "side", "permutation")
                .join(chosen, on=SPEC)
                .select("prompt_id", "asked", pl.col("side").cast(SIDE), "permutation")
                .collect(engine="streaming")
            )
            self.kept = (start, stop, found)
        return self.kept[2]

    def whole_prompts_of(self, start: int, stop: int) -> pl.LazyFrame:
        """The prompts of a slice with all their columns."""
        return self.prompts.join(self.asked.lazy().slice(start, stop - start), on=SPEC, how="semi")


def score(
    source: AnswerSource,
    prompts: pl.LazyFrame,
    items: pl.LazyFrame,
    *,
    write_items: Callable[[pa.Table], None],
    bootstrap: Bootstrap,
    slice_rows: int = SLICE_ROWS,
    tally: ReplyTally | None = None,
) -> pa.Table:
    """Scores every checkpoint of `source`; returns the summary, [rows, columns of SCORES_SUMMARY].

    `prompts` and `items` have the columns of `schema.PROMPTS` and `schema.ITEMS` (`pl.scan_ipc` of the run's files, or a table).
    `write_items` is called with pieces of scores/items (schema SCORES_ITEMS): checkpoints in the source's order, then variant and
    language in the order of their names, items in the order of `items`, trials. The same answers give the same tables, byte for
    byte, whatever shards they come in. Items that `wdct check` found suspicious are scored like others and carry their flags.

    Every planned item has a row for each trial that the checkpoint has answers of; planned prompts without an answer count as
    `missing`. `tally` is filled with what replies say. Raises `RunDirError` where an answer is there twice, or answers of different
    digests stand under one checkpoint.
    """
    plan = _read_plan(prompts, items)
    parts = []
    for checkpoint_id in source.checkpoints():
        answers = source.tables(checkpoint_id)
        num_trials = _num_trials(answers, checkpoint_id)
        waiting: list[pl.DataFrame] = []
        for start, stop in plan.slices(num_trials, slice_rows):
            scored, contributed = _score_slice(answers, plan, start, stop, num_trials, checkpoint_id, tally)
            write_items(scored)
            waiting.append(contributed)
            ended = stop == plan.asked.height
            done, waiting = _finished(pl.concat(waiting), ended)
            for (variant, language), group in done.group_by("variant", "language", maintain_order=True):
                parts.append(
                    summarise(
                        group,
                        plan.domains,
                        bootstrap,
                        checkpoint_id=checkpoint_id,
                        variant=str(variant),
                        language=str(language),
                    )
                )
    if not parts:
        return schema.SCORES_SUMMARY.empty_table()
    return _to_arrow(pl.concat(parts), schema.SCORES_SUMMARY)


def item_scores(derived: pl.LazyFrame, asked: pl.LazyFrame, num_options: int, *, num_trials: int) -> pl.LazyFrame:
    """All measures of the items with k = `num_options`, one row for each item and trial.

    `derived` as `derive` returns it, with `asked` (the row of `asked`) for an item. The columns are those of
    `sides.side_by_side` and of each measure; probabilities are lists again, so that tables of different k can be put together.
    """
    wide = widen(derived, num_options)
    table = side_by_side(over_orders(wide, num_options, KEYS), KEYS)
    table = table.join(asked.select("asked", "num_options", "correct_option", "suspicious"), on="asked")
    table = consistency.match(table, num_options)
    table = consistency.match_debiased(table, num_options)
    table = probability.pcs_debiased(table, num_options)
    table = table.join(over_pairs(wide, num_options, KEYS), on=list(KEYS), how="left")
    table = quality.correct(table, num_options)
    if num_trials > 1:
        table = stability.trial_agreement(table, num_options, KEYS)
    else:
        table = table.with_columns(pl.lit(None, pl.Float64).alias(f"{side}_agreement") for side in SIDE.categories)
    # `concat_arr` makes lists of a million rows in 0.01 s, `concat_list` in 0.3 s; the first has no null rows of its own.
    return table.with_columns(
        pl.when(pl.col(f"{side}_p0").is_not_null())
        .then(pl.concat_arr([f"{side}_p{i}" for i in range(num_options)]).arr.to_list())
        .alias(f"{side}_probs")
        for side in SIDE.categories
    ).drop(f"{side}_{kind}{i}" for side in SIDE.categories for kind in "psd" for i in range(num_options))


def _read_plan(prompts: pl.LazyFrame, items: pl.LazyFrame) -> _Plan:
    described = items.select("item_id", "correct_option", "flags").with_row_index("position")
    asked = (
        prompts.group_by(SPEC)
        .agg(
            pl.col("domain").first(),
            num_options=pl.col("permutation").list.len().max().cast(pl.UInt8),
            num_prompts=pl.len(),
        )
        .join(described, on="item_id", how="left")
        .sort("variant", "language", "position", "item_id", nulls_last=True)
        .with_columns(suspicious=pl.col("flags").list.len().fill_null(0) > 0)
        .with_row_index("asked")
        .collect(engine="streaming")
    )
    domains = asked.group_by("domain").agg(pl.col("position").min()).sort("position", "domain", nulls_last=True)["domain"].to_list()
    has_replies = prompts.select((pl.col("reply_tokens") > 1).any()).collect(engine="streaming").item()
    return _Plan(prompts, asked.drop("position"), domains, has_replies)


def _num_trials(answers: pl.LazyFrame, checkpoint_id: str) -> int:
    """How many trials the checkpoint has answers of."""
    found = answers.select("checkpoint_digest", "trial").unique().collect(engine="streaming")
    digests = sorted(found["checkpoint_digest"].unique())
    if len(digests) > 1:
        raise RunDirError(
            f"answers of checkpoint {checkpoint_id}: they come from different weights (digests {', '.join(digests)}), of which only "
            "one can be scored under this name; choose by the digest in provenance.json and leave the other shards out."
        )
    return found["trial"].n_unique()


def _score_slice(
    answers: pl.LazyFrame, plan: _Plan, start: int, stop: int, num_trials: int, checkpoint_id: str, tally: ReplyTally | None
) -> tuple[pa.Table, pl.DataFrame]:
    """scores/items of rows `start` to `stop` of the plan, and what they add to each metric, both sorted."""
    prompts = plan.prompts_of(start, stop)
    derived = derive(answers, prompts.lazy()).collect(engine="streaming")
    if derived.height > prompts.height * num_trials:
        twice = derived.filter(pl.struct("prompt_id", "trial").is_duplicated()).sort("prompt_id", "trial")
        raise RunDirError(
            f"answers of checkpoint {checkpoint_id}: {derived.height - prompts.height * num_trials} are there twice, the first "
            f"for prompt {twice['prompt_id'][0]}, trial {twice['trial'][0]}; two shards overlap: delete one of them, and "
            "manifest.json, which is then made anew."
        )
    if plan.has_replies:
        parsed = parse_answers(replies(answers, plan.whole_prompts_of(start, stop))).collect(engine="streaming")
        if tally is not None:
            tally.add(parsed)
        derived = with_replies(derived.lazy(), parsed.lazy()).collect(engine="streaming")
    derived = derived.drop("prompt_id")
    asked = plan.asked[start:stop]
    table = pl.concat(
        item_scores(derived.lazy(), asked.lazy(), num_options, num_trials=num_trials).collect(engine="streaming")
        for num_options in sorted(derived["num_options"].unique())
    ).sort(KEYS)
    names = asked.lazy().select("asked", *SPEC, "domain", "flags")
    added = contributions(table.lazy(), ["asked"]).join(names, on="asked").sort("asked").collect(engine="streaming")
    scored = table.lazy().join(names, on="asked", how="left", maintain_order="left")
    columns = scored.with_columns(
        checkpoint_id=pl.lit(checkpoint_id),
        parse_status_word="word_parse_status",
        parse_status_deed="deed_parse_status",
        label_mass_word="word_label_mass",
        label_mass_deed="deed_label_mass",
    ).select(schema.SCORES_ITEMS.names)
    return _to_arrow(columns.collect(), schema.SCORES_ITEMS), added.drop("flags", "item_id")


def _finished(contributed: pl.DataFrame, ended: bool) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Splits off the last variant and language, of which the next slice may hold more; nothing is left when `ended`."""
    if ended:
        return contributed, []
    last = contributed.tail(1)
    open_still = (pl.col("variant") == last["variant"][0]) & (pl.col("language") == last["language"][0])
    return contributed.filter(~open_still), [contributed.filter(open_still)]


def _to_arrow(frame: pl.DataFrame, table_schema: pa.Schema) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest()).select(table_schema.names).cast(table_schema)
