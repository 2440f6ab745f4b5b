"""What a run's scores say beside each other: scores/differences.arrow, scores/effects.arrow, scores/noise.arrow, and rows of the
summary that need more than one variant, language, trial or evaluation.

`write_scores` comes first: everything here starts from scores/items.arrow, but for `bit_stable` and `reasoning_cut`, which need the
answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from wdct_dist.config.schema import MetricsConfig
from wdct_dist.errors import RunDirError
from wdct_dist.metrics.answers import AnswerSource
from wdct_dist.metrics.arrow_frame import write_frame
from wdct_dist.metrics.bit_stability import bit_stable_rows
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.compute import SPEC, score
from wdct_dist.metrics.effects import effects, family_rows
from wdct_dist.metrics.languages import language_rows
from wdct_dist.metrics.noise import noise_floors, noise_rows
from wdct_dist.metrics.order_effects import order_effects
from wdct_dist.metrics.paired import differences
from wdct_dist.metrics.panel import Panel, build_panel
from wdct_dist.metrics.reasoning import reasoning_cut_rows
from wdct_dist.metrics.run_scores import ITEMS, SUMMARY_CSV, answers_of
from wdct_dist.metrics.summary import summary_csv
from wdct_dist.tables import items_file, prompts_file, schema
from wdct_dist.tables.arrow_file import scan
from wdct_dist.tables.run_dir import SUMMARY
from wdct_dist.tables.storage import Store

DIFFERENCES = "scores/differences.arrow"
EFFECTS = "scores/effects.arrow"
NOISE = "scores/noise.arrow"


def write_comparisons(store: Store, summary: pl.DataFrame, digests: Mapping[str, str], settings: MetricsConfig) -> pl.DataFrame:
    """Writes the tables of comparisons, and the summary anew with the rows that they add at its end; returns it.

    `summary` and `digests` as `write_scores` returned and was given them.
    """
    bootstrap = bootstrap_of(settings)
    scores, items, prompts = (scan(store, name) for name in (ITEMS, items_file.NAME, prompts_file.NAME))
    panel = build_panel(scores, items)
    floors = noise_floors(panel, repeat_panels(store, digests), bootstrap.level)
    write_frame(store, NOISE, floors, schema.SCORES_NOISE)
    write_frame(store, DIFFERENCES, differences(panel, bootstrap, floors), schema.SCORES_DIFFERENCES)
    write_frame(store, EFFECTS, pl.concat([effects(panel, bootstrap), order_effects(scores, items, bootstrap)]), schema.SCORES_EFFECTS)
    answers = answers_of(store, digests)
    by_prompt = [
        rows(name, answers.tables(name), prompts, items, bootstrap)
        for name in answers.checkpoints()
        for rows in (bit_stable_rows, reasoning_cut_rows)
    ]
    added = [family_rows(panel, bootstrap), language_rows(scores, items, bootstrap), *by_prompt, noise_rows(floors)]
    whole = pl.concat([summary, *added])
    write_frame(store, SUMMARY, whole, schema.SCORES_SUMMARY)
    store.write(SUMMARY_CSV, summary_csv(whole).encode())
    return whole


def bootstrap_of(settings: MetricsConfig) -> Bootstrap:
    """How the run's intervals are made."""
    return Bootstrap(settings.bootstrap_resamples, settings.bootstrap_seed, settings.level)


def repeat_panels(store: Store, digests: Mapping[str, str]) -> list[Panel]:
    """The A/A repeats that have answers, `noise/1`, `noise/2` … inside the run, without a gap; see `noise`."""
    panels: list[Panel] = []
    while True:
        repeat = store.child(f"noise/{len(panels) + 1}")
        try:
            answers = answers_of(repeat, digests)
        except RunDirError:
            return panels
        panels.append(build_panel(repeat_scores(store, answers), scan(store, items_file.NAME)))


def repeat_scores(store: Store, answers: AnswerSource) -> pl.LazyFrame:
    """The item scores of a repeat, from its answers to the prompts of the run in `store`; columns of `schema.SCORES_ITEMS`.

    Of a repeat that was broken off, the items that were asked as often as in the run: what an item lacks would look like noise.
    """
    tables: list[pa.Table] = [schema.SCORES_ITEMS.empty_table()]
    prompts, items = (scan(store, name) for name in (prompts_file.NAME, items_file.NAME))
    score(answers, prompts, items, write_items=tables.append, bootstrap=Bootstrap(resamples=0))
    scores = pl.DataFrame(pa.concat_tables(tables)).lazy()
    num_trials = scan(store, ITEMS).select(pl.col("trial").n_unique()).collect(engine="streaming").item()
    asked = [_asked_whole(name, answers.tables(name), prompts, num_trials) for name in answers.checkpoints()]
    return scores.join(pl.concat(asked), on=["checkpoint_id", *SPEC], how="semi", maintain_order="left")


def _asked_whole(checkpoint_id: str, answers: pl.LazyFrame, prompts: pl.LazyFrame, num_trials: int) -> pl.LazyFrame:
    """`checkpoint_id` and `SPEC` of the items of which every prompt has an answer, or an error, in every trial."""
    counts = answers.group_by("prompt_id").agg(num_rows=pl.len())
    return (
        prompts.select("prompt_id", *SPEC)
        .join(counts, on="prompt_id", how="left")
        .group_by(SPEC)
        .agg(is_whole=(pl.col("num_rows").fill_null(0) >= num_trials).all())
        .filter("is_whole")
        .select(pl.lit(checkpoint_id).alias("checkpoint_id"), *SPEC)
    )
