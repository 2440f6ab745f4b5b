"""From the answers on disk to what people read: metric tables, reports, logs for other tools' viewers.

    score_run(store)        the metric tables, from the answers alone
    report_run(store)       a run's report, from its tables; report_across(stores) of several beside each other
    export_run(store)       the same as another evaluator would have logged it
    track_run(store)        the same in an experiment tracker

Everything here is derived: it needs no model, and can be done again whenever somebody doubts it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from wdct_dist.config.schema import Config, TrackingConfig
from wdct_dist.errors import BadInput, RunDirError, StorageError
from wdct_dist.report import html
from wdct_dist.report.formats import FORMATS, TEXT
from wdct_dist.tables import items_file, manifest
from wdct_dist.tables.arrow_file import read_table, scan
from wdct_dist.tables.events import read_events
from wdct_dist.tables.run_dir import SUMMARY, read_config, read_provenance
from wdct_dist.tables.storage import Store
from wdct_dist.tracking import MLFLOW, TRACKERS, WANDB, what_tracking_lacks

if TYPE_CHECKING:
    import polars as pl

    from wdct_dist.metrics.parsed import ReplyTally
    from wdct_dist.report.findings import Findings


def score_run(store: Store, config: Config | None = None, tally: ReplyTally | None = None) -> pl.DataFrame:
    """Derives the metric tables from the answers on disk; returns the summary. Needs no model, and changes no answer."""
    from wdct_dist.metrics.run_comparisons import write_comparisons
    from wdct_dist.metrics.run_scores import write_scores

    settings = config or read_config(store)
    digests = {one["checkpoint_id"]: one["digest"] for one in read_provenance(store).get("checkpoints", [])}
    summary = write_scores(store, digests, settings.metrics, tally)
    whole = write_comparisons(store, summary, digests, settings.metrics)
    write_change(store, settings)
    return whole


def write_change(store: Store, settings: Config) -> None:
    """Writes scores/change.arrow where checkpoints of the run came from alignment in it; scores/items.arrow is there."""
    from wdct_dist.align.produced import find_aligned
    from wdct_dist.metrics import change
    from wdct_dist.metrics.arrow_frame import write_frame
    from wdct_dist.metrics.panel import build_panel
    from wdct_dist.metrics.run_comparisons import bootstrap_of
    from wdct_dist.metrics.run_scores import ITEMS
    from wdct_dist.tables import schema

    aligned = find_aligned(store, read_provenance(store).get("checkpoints", []))
    if not aligned:
        store.delete(change.NAME)
        return
    scores = scan(store, ITEMS)
    table = change.change(scores, build_panel(scores, scan(store, items_file.NAME)), aligned, bootstrap_of(settings.metrics))
    write_frame(store, change.NAME, table, schema.SCORES_CHANGE)


def report_run(store: Store, *, page: bool = False, form: str = TEXT) -> None:
    """Prints the report of a run from its tables, as `form` says: `TEXT` or one of `FORMATS`.

    `page`: also writes RUN/report.html. Raises `BadInput` where a package that this needs is not installed.
    """
    from wdct_dist.report.contents import contents
    from wdct_dist.report.terminal import print_report

    found = findings(store)
    try:
        if form == TEXT:
            print_report(found)
        else:
            _write_for_programs(FORMATS[form](contents(found)))
    finally:
        # also where nobody reads what is printed
        if page:
            write_html(store, found)


def _write_for_programs(text: str) -> None:
    """Prints in UTF-8 whatever the terminal speaks; in a notebook, whose output takes text alone, as it is."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    buffer.write(text.encode("utf-8", "replace"))
    buffer.flush()


def report_across(stores: Sequence[Store], *, form: str = TEXT) -> None:
    """Prints several runs beside each other, on the items that they share; as `form` says, see `report_run`."""
    from wdct_dist.metrics.across_runs import RunTables, across_runs
    from wdct_dist.metrics.bootstrap import Bootstrap
    from wdct_dist.metrics.run_scores import ITEMS
    from wdct_dist.report.across import across
    from wdct_dist.report.contents import TERMINAL, WHOLE
    from wdct_dist.report.terminal import print_contents

    runs = dict(zip(run_names([store.uri for store in stores]), stores, strict=True))
    found = {name: findings(store) for name, store in runs.items()}
    settings = next(iter(found.values())).config.metrics
    tables = [RunTables(name, scan(store, ITEMS), scan(store, items_file.NAME)) for name, store in runs.items()]
    beside = across_runs(tables, Bootstrap(settings.bootstrap_resamples, settings.bootstrap_seed, settings.level))
    if form == TEXT:
        print_contents(across(beside, found, TERMINAL))
    else:
        _write_for_programs(FORMATS[form](across(beside, found, WHOLE)))


def run_names(uris: Sequence[str]) -> list[str]:
    """The last part of each URI; where two runs share it, as much of its end as tells them apart. The same run twice is bad input."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    if len({tuple(one) for one in parts}) < len(parts):
        raise BadInput(f"the same run is given twice ({', '.join(uris)}); give different ones to compare them.")
    size = 1
    while len({tuple(one[-size:]) for one in parts}) < len(parts):
        size += 1
    return ["/".join(one[-size:]) for one in parts]


def rewrite_html(store: Store) -> None:
    """Writes RUN/report.html again where the run has one or wants one, so that it is not older than the tables; says so where it cannot."""
    if not store.exists(html.NAME) and not read_config(store).report.html:
        return
    if (missing := html.what_html_lacks()) is None:
        write_html(store, findings(store))
    else:
        print(f"{missing} The tables are new, {html.NAME} is not.", file=sys.stderr)


def write_html(store: Store, found: Findings) -> None:
    """Writes RUN/report.html. Raises `BadInput` where a package that this needs is not installed."""
    if (missing := html.what_html_lacks()) is not None:
        raise BadInput(missing)
    from wdct_dist.report.html import page

    page.write_page(store, found)
    print(f"{html.NAME} is in {store.uri}", file=sys.stderr)


def findings(store: Store) -> Findings:
    """What a run's reports are made from; its tables are derived first where they are not there, or older than the answers."""
    import polars as pl

    from wdct_dist.align.produced import find_descents, read_training
    from wdct_dist.metrics.change import NAME as CHANGE
    from wdct_dist.metrics.run_comparisons import DIFFERENCES, EFFECTS
    from wdct_dist.report.findings import Findings, Scores
    from wdct_dist.report.status import unfinished_text

    config, record = read_config(store), read_provenance(store)
    # the manifest is written after the shards, so what is younger than it has seen them (but for a killed driver's last seconds)
    is_scored = store.exists(SUMMARY) and store.changed_ns(SUMMARY) >= store.changed_ns(manifest.NAME)
    try:
        summary = pl.DataFrame(read_table(store, SUMMARY)) if is_scored else score_run(store, config)
    except StorageError as error:
        # a copy whose times say nothing, in a place that may only be read, still has its tables
        if is_scored or not store.exists(SUMMARY):
            raise
        print(f"{error} Its tables are shown as they are; they may be older than its answers.", file=sys.stderr)
        summary = pl.DataFrame(read_table(store, SUMMARY))
    comparisons = (DIFFERENCES, EFFECTS, CHANGE)
    differences, effects, change = (pl.DataFrame(read_table(store, name)) if store.exists(name) else None for name in comparisons)
    said = dict.fromkeys(note for event in read_events(store) if (note := _note_of(event)) is not None)
    unfinished = unfinished_text(store, config, record)
    notes = [*([] if unfinished is None else [unfinished]), *said]
    return Findings(
        Scores(summary, differences, effects, change),
        config,
        record,
        notes,
        read_training(store),
        find_descents(store, record.get("checkpoints", [])),
    )


def _note_of(event: Mapping[str, Any]) -> str | None:
    """What an event says to those who read the figures."""
    if event["event"] == "adapters merged":
        return f"adapters merged into their base ({', '.join(event['checkpoints'])}): {event['reason']}"
    return str(event["note"]) if event["event"] == "engine note" else None


def export_run(store: Store, folder: Path, form: str) -> list[Path]:
    """Writes a run into `folder` as another evaluator logs one, as `form` of `export.FORMATS` says; returns the logs, or results, written.

    Of a run that is not finished what there is, and says so.

    Raises `RunDirError` where the run has no answers or `folder` cannot be written.
    """
    from wdct_dist.export.cases import cases_of, ways_of
    from wdct_dist.export.inspect_log import write_inspect
    from wdct_dist.export.lm_eval_log import write_lm_eval
    from wdct_dist.metrics.run_scores import check_asked
    from wdct_dist.report.status import unfinished_text

    write = {"inspect": write_inspect, "lm-eval": write_lm_eval}[form]
    # derived first where they are not there or older than the answers, as for a report
    found = findings(store)
    check_asked(store)
    record = found.provenance
    digests = {one["checkpoint_id"]: one["digest"] for one in record.get("checkpoints", [])}
    unfinished = unfinished_text(store, found.config, record)
    if unfinished is not None:
        print(unfinished, file=sys.stderr)
    ways = ways_of(store, finished=unfinished is None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return list(dict.fromkeys(write(folder, way, cases_of(store, digests, way), record) for way in ways))
    except OSError as error:
        raise RunDirError(f"{folder}: the logs cannot be written there ({error}); choose another folder.") from error


def track_run(store: Store, tracker: str, uri: str | None, project: str) -> str:
    """Writes a run to `tracker`, one of `TRACKERS`, or renews it there; returns where it is.

    Of a run that is not finished what there is, and says so. Raises `BadInput` where a package or an address is missing, `TrackingError`
    where the tracker does not take it.
    """
    from wdct_dist.report.status import unfinished_text

    if (missing := what_tracking_lacks(tracker)) is not None:
        raise BadInput(missing)
    from wdct_dist.tracking.mlflow import write_mlflow
    from wdct_dist.tracking.tracked_run import tracked_run, write_files
    from wdct_dist.tracking.wandb import write_wandb

    found = findings(store)
    unfinished = unfinished_text(store, found.config, found.provenance)
    if unfinished is not None:
        print(unfinished, file=sys.stderr)
    with TemporaryDirectory(prefix="wdct-track-") as folder:
        write_files(store, Path(folder))
        write = {MLFLOW: write_mlflow, WANDB: write_wandb}[tracker]
        return write(tracked_run(store, found, unfinished), Path(folder), uri, project)


def track_as_configured(store: Store, settings: TrackingConfig) -> None:
    """Writes a run to the trackers that its configuration names. Where one fails that is said, and the run is as complete as before."""
    for tracker, uri, project in _wanted(settings):
        if what_tracking_lacks(tracker) is not None:
            continue
        try:
            print(track_run(store, tracker, uri, project), file=sys.stderr)
        except Exception as error:
            print(f"{TRACKERS[tracker]}: {error} `wdct track {store.uri} --to {tracker}` tries again.", file=sys.stderr)


def lacking_trackers(settings: TrackingConfig) -> list[str]:
    """A sentence for each tracker that is wanted and whose package is not there."""
    return [missing for tracker, _, _ in _wanted(settings) if (missing := what_tracking_lacks(tracker)) is not None]


def _wanted(settings: TrackingConfig) -> list[tuple[str, str | None, str]]:
    """Tracker, address and project or experiment."""
    mlflow = [] if settings.mlflow is None else [(MLFLOW, settings.mlflow, settings.experiment)]
    return [*mlflow, *([] if settings.wandb is None else [(WANDB, None, settings.wandb)])]
