"""The metric tables of a run directory: scores/items.arrow, scores/summary.arrow, scores/summary.csv."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from wdct_dist.config.schema import MetricsConfig
from wdct_dist.errors import RunDirError
from wdct_dist.metrics.answers import ShardFiles
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.compute import score
from wdct_dist.metrics.parsed import ReplyTally
from wdct_dist.metrics.summary import summary_csv
from wdct_dist.tables import items_file, prompts_file, schema
from wdct_dist.tables.arrow_file import read_table, scan
from wdct_dist.tables.manifest import once
from wdct_dist.tables.run_dir import SUMMARY
from wdct_dist.tables.shards import DIGEST_LENGTH, parse_name
from wdct_dist.tables.storage import Store

ITEMS = "scores/items.arrow"
SUMMARY_CSV = "scores/summary.csv"


def write_scores(store: Store, digests: Mapping[str, str], settings: MetricsConfig, tally: ReplyTally | None = None) -> pl.DataFrame:
    """Derives the tables from the shards of the checkpoints in `digests` (digest by checkpoint id); returns the summary.

    `tally` is filled with what replies say.

    Raises `RunDirError` where there are no answers, or not what was asked.
    """
    bootstrap = Bootstrap(settings.bootstrap_resamples, settings.bootstrap_seed, settings.level)
    answers = answers_of(store, digests)
    check_asked(store)
    with store.writing(ITEMS) as stream, pa.ipc.new_file(stream, schema.SCORES_ITEMS, options=schema.IPC_OPTIONS) as writer:
        summary = score(
            answers,
            scan(store, prompts_file.NAME),
            scan(store, items_file.NAME),
            write_items=writer.write_table,
            bootstrap=bootstrap,
            tally=tally,
        )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema.SCORES_SUMMARY, options=schema.IPC_OPTIONS) as writer:
        writer.write_table(summary)
    store.write(SUMMARY, sink.getvalue())
    frame = pl.DataFrame(summary)
    store.write(SUMMARY_CSV, summary_csv(frame).encode())
    return frame


def check_asked(store: Store) -> None:
    """Raises `RunDirError` where the run lacks what was asked, without which its answers mean nothing."""
    if lacking := [name for name in (items_file.NAME, prompts_file.NAME) if not store.exists(name)]:
        raise RunDirError(f"{store.uri}: it lacks {' and '.join(lacking)}; give the `wdct evaluate` command again to mend the run.")


def answers_of(store: Store, digests: Mapping[str, str]) -> ShardFiles:
    """The shards of the checkpoints as they are now: answers of other weights under the same name are left aside."""
    by_digest: dict[str, list[str]] = {}
    for name in once(store.names("answers")):
        if (key := parse_name(name)) is not None:
            by_digest.setdefault(key.checkpoint_digest, []).append(store.path(name) if store.local is not None else name)
    shards = {checkpoint_id: names for checkpoint_id, digest in digests.items() if (names := by_digest.get(digest[:DIGEST_LENGTH]))}
    if not shards:
        raise RunDirError(f"{store.uri}: it has no answers of its checkpoints yet; `wdct evaluate` writes them.")
    return ShardFiles(shards, None if store.local is not None else lambda name: read_table(store, name))
