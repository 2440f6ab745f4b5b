"""One function a command. Each imports what it needs when it is called."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from wdct_dist.cli.output import unread_is_no_fault
from wdct_dist.errors import EXIT_COMPLETE, EXIT_INCOMPLETE


def check(options: Namespace) -> int:
    from wdct_dist.items.audit_text import check as audit

    text, exit_code = audit(options.data)
    print(text)
    return exit_code


def plan(options: Namespace) -> int:
    from wdct_dist.config.load import load_config
    from wdct_dist.config.unused import unused
    from wdct_dist.forecast import forecast, forecast_text

    config = load_config(options.config, options.overrides)
    found = forecast(config)
    print(forecast_text(found))
    for said in unused(config):
        print(said, file=sys.stderr)
    # as `evaluate` would end
    return EXIT_INCOMPLETE if found.broken else EXIT_COMPLETE


def evaluate(options: Namespace) -> int:
    from wdct_dist.config.load import load_config
    from wdct_dist.config.unused import unused

    config = load_config(options.config, options.overrides)
    for said in unused(config):
        print(said, file=sys.stderr)

    from wdct_dist.pipeline import rounds
    from wdct_dist.report.html import what_html_lacks
    from wdct_dist.reporting import lacking_trackers, report_run, track_as_configured

    missing = what_html_lacks() if config.report.html else None
    if missing is not None:
        print(f"{missing} The run goes on without it (report.html=false: no report.html is wanted).", file=sys.stderr)
    for lacking in lacking_trackers(config.tracking):
        print(f"{lacking} The run goes on without it, and `wdct track` can write it later.", file=sys.stderr)
    exit_code = EXIT_COMPLETE
    for outcome in rounds(config):
        if outcome.interrupted is None:
            with unread_is_no_fault():
                report_run(outcome.store, page=config.report.html and missing is None)
            track_as_configured(outcome.store, config.tracking)
        print(outcome.sentence(), file=sys.stderr)
        exit_code = outcome.exit_code
    return exit_code


def align(options: Namespace) -> int:
    from wdct_dist.config.align_rules import load_align_config
    from wdct_dist.config.unused import unused_in_alignment

    config = load_align_config(options.config, options.overrides)
    for said in unused_in_alignment(config):
        print(said, file=sys.stderr)

    from wdct_dist.aligning import align as run_experiment
    from wdct_dist.report.html import what_html_lacks
    from wdct_dist.reporting import lacking_trackers, report_run, track_as_configured

    missing = what_html_lacks() if config.evaluation.report.html else None
    if missing is not None:
        print(f"{missing} The experiment goes on without it (evaluation.report.html=false: no report.html is wanted).", file=sys.stderr)
    for lacking in lacking_trackers(config.evaluation.tracking):
        print(f"{lacking} The experiment goes on without it, and `wdct track` can write it later.", file=sys.stderr)
    ended = run_experiment(config)
    if ended.interrupted is None:
        with unread_is_no_fault():
            report_run(ended.evaluation.store, page=config.evaluation.report.html and missing is None)
        track_as_configured(ended.evaluation.store, config.evaluation.tracking)
    print(ended.sentence(), file=sys.stderr)
    return ended.exit_code


def score(options: Namespace) -> int:
    from wdct_dist.metrics.parsed import ReplyTally
    from wdct_dist.report.unparsed import unparsed_text
    from wdct_dist.reporting import rewrite_html, score_run
    from wdct_dist.tables.run_dir import existing_run

    for uri in options.runs:
        store, tally = existing_run(uri), ReplyTally()
        summary = score_run(store, tally=tally)
        print(f"{uri}: {summary.height:,} figures in scores/summary.arrow and .csv; items, differences, effects and noise beside them")
        if text := unparsed_text(tally):
            print(text)
        rewrite_html(store)
    return EXIT_COMPLETE


def report(options: Namespace) -> int:
    from wdct_dist.reporting import findings, report_across, report_run, write_html
    from wdct_dist.tables.run_dir import existing_run

    stores = [existing_run(uri) for uri in options.runs]
    if len(stores) == 1:
        report_run(stores[0], page=options.html, form=options.format)
        return EXIT_COMPLETE
    report_across(stores, form=options.format)
    for store in stores if options.html else ():
        write_html(store, findings(store))
    return EXIT_COMPLETE


def export(options: Namespace) -> int:
    from wdct_dist.reporting import export_run
    from wdct_dist.tables.run_dir import existing_run

    written = export_run(existing_run(options.run), Path(options.folder), options.format)
    print(f"{len(written):,} {'log is' if len(written) == 1 else 'logs are'} in {options.folder}")
    return EXIT_COMPLETE


def track(options: Namespace) -> int:
    from wdct_dist.reporting import track_run
    from wdct_dist.tables.run_dir import existing_run

    for store in [existing_run(uri) for uri in options.runs]:
        print(f"{store.uri}: {track_run(store, options.to, options.uri, options.project)}")
    return EXIT_COMPLETE


def status(options: Namespace) -> int:
    from wdct_dist.report.status import status_text
    from wdct_dist.tables.run_dir import existing_run

    for uri in options.runs:
        print(status_text(existing_run(uri)))
    return EXIT_COMPLETE


def fetch(options: Namespace) -> int:
    if options.name == "wdct":
        from wdct_dist.items.fetch import fetch_wdct

        print(fetch_wdct())
        return EXIT_COMPLETE
    from wdct_dist.checkpoints.fetch import fetch_model

    directory, digest = fetch_model(options.name)
    print(f"{directory}\ndigest {digest}")
    return EXIT_COMPLETE
