"""What of a run goes to a tracker, whichever it is: one tracker's run for each run directory.

Metrics are the summary's figures, named `metric/checkpoint/variant/domain` (with the language before the domain where several are asked).
Checkpoints that are steps of one training share one name, and their figures have its steps.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from wdct_dist.config.load import as_plain
from wdct_dist.config.schema import Config
from wdct_dist.errors import TrackingError
from wdct_dist.ids import slugs, stable_hash
from wdct_dist.items.types import SIDES
from wdct_dist.metrics.run_comparisons import DIFFERENCES, EFFECTS, NOISE
from wdct_dist.metrics.run_scores import ITEMS, SUMMARY_CSV
from wdct_dist.report.findings import Findings
from wdct_dist.report.html import NAME as PAGE
from wdct_dist.report.html.item_sample import draw_sample
from wdct_dist.report.training import Step, steps
from wdct_dist.tables.run_dir import CONFIG, PROVENANCE, SUMMARY
from wdct_dist.tables.storage import Store

FILES = (PAGE, CONFIG, PROVENANCE, SUMMARY, SUMMARY_CSV, DIFFERENCES, EFFECTS, NOISE, ITEMS)
"""What is written as files, where the run has it."""
TEXTS = (PAGE, CONFIG, PROVENANCE)

MOST_BYTES = 64 * 2**20
"""A file above this stays in the run directory alone."""

WITH_ENDS = ("cs", "pcs")
"""Metrics whose intervals are metrics too, as `cs_low` and `cs_high`; all intervals are in the tables."""

LONGEST_PART = 70
"""Characters of one part of a metric's name; MLflow takes 250 in all."""

LONGEST_REASON = 400
"""Characters of what a tracker says of its refusal."""

PASSWORD = re.compile(r"(?<=://)[^/\s@\"'<>]+@")
"""What an address says of a user, such as the keys in `s3://KEY:SECRET@bucket/run`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure."""

    name: str
    value: float
    step: int | None
    """The training's step; None for a checkpoint that is none."""


@dataclass(frozen=True, slots=True)
class TrackedTable:
    """A table that trackers show; a cell is a text, a number, or None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """All that is written of a run."""

    run_id: str
    """Told by when the run began and what it asks, so it stays the same wherever the directory lies and however often it is resumed."""
    name: str
    finished: bool
    start_ms: int
    end_ms: int
    scored_ms: int
    """Begin and end of the run, and the age of its tables, in milliseconds since the epoch."""
    params: Mapping[str, str]
    """The resolved configuration by dotted key; lists and mappings as JSON."""
    facts: Mapping[str, str]
    """What it says of itself besides: versions, commit, data, how far it is."""
    metrics: Sequence[Metric]
    tables: Mapping[str, TrackedTable]
    """`summary`, and `items`: the sample of report.html."""


def tracked_run(store: Store, found: Findings, unfinished: str | None) -> TrackedRun:
    """What is written of the run in `store`; `unfinished`: a sentence on what is missing, None where nothing is."""
    record = found.provenance
    start, end = str(record["start"]), str(record.get("end") or record["start"])
    return TrackedRun(
        run_id=stable_hash([start, record.get("prompts", {}).get("digest")]),
        name=store.uri.partition("?")[0].rstrip("/").rpartition("/")[2],
        finished=unfinished is None,
        start_ms=_milliseconds(start),
        end_ms=_milliseconds(end),
        scored_ms=store.changed_ns(SUMMARY) // 1_000_000,
        params=params_of(found.config),
        facts=_facts(record, unfinished),
        metrics=metrics_of(found.scores.summary),
        tables={"summary": _summary_table(found.scores.summary), "items": _items_table(store, record)},
    )


def params_of(config: Config) -> dict[str, str]:
    """Every setting by its dotted key."""
    found: dict[str, str] = {}

    def walk(section: Any, prefix: str) -> None:
        for entry in dataclasses.fields(section):
            value, key = getattr(section, entry.name), f"{prefix}{entry.name}"
            if dataclasses.is_dataclass(value):
                walk(value, f"{key}.")
            else:
                plain = as_plain(value)
                text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
                found[key] = without_passwords(text)

    walk(config, "")
    return found


def metrics_of(summary: pl.DataFrame) -> list[Metric]:
    """The figures of a summary that are numbers, in its order."""
    checkpoints, variants, languages, domains = (
        summary[name].unique(maintain_order=True).to_list() for name in ("checkpoint_id", "variant", "language", "domain")
    )
    training = steps(checkpoints)
    # a checkpoint that bears a training's name is where it began
    training |= {one.series: Step(one.series, 0) for one in training.values() if one.series in checkpoints}
    series = {name: training[name].series if name in training else name for name in checkpoints}
    part = slugs([*series.values(), *variants, *domains], LONGEST_PART)
    found = []
    for row in summary.iter_rows(named=True):
        name = row["checkpoint_id"]
        step = training[name].step if name in training else None
        language = [row["language"]] if len(languages) > 1 else []
        place = [part[series[name]], part[row["variant"]], *language, part[row["domain"]]]
        ends = {"_low": row["ci_low"], "_high": row["ci_high"]} if row["metric"] in WITH_ENDS else {}
        for end, value in {"": row["value"], **ends}.items():
            if value is not None and math.isfinite(value):
                found.append(Metric("/".join([row["metric"] + end, *place]), value, step))
    return found


def write_files(store: Store, folder: Path) -> None:
    """Copies the files of a run that are written to a tracker into `folder`, under their names; says which are too large."""
    for name in FILES:
        if not store.exists(name):
            continue
        if (size := store.size_bytes(name)) > MOST_BYTES:
            print(f"{name} ({size / 2**20:,.0f} MiB) is too large for a tracker and stays in {store.uri}", file=sys.stderr)
            continue
        data = store.read(name)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(without_passwords(data.decode()).encode() if name in TEXTS else data)


def without_passwords(text: str) -> str:
    """`text` with what addresses in it say of a user left out: a tracker has other readers than the run directory."""
    return PASSWORD.sub("", text)


def refusal(tracker: str, error: Exception) -> TrackingError:
    """What to say where a tracker did not take a run, in one line and without keys."""
    reason = " ".join(str(error).split()) or type(error).__name__
    short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} …"
    return TrackingError(without_passwords(f"{tracker} did not take the run ({short}); the run directory is as it was."))


def _facts(record: Mapping[str, Any], unfinished: str | None) -> dict[str, str]:
    last = record["sessions"][-1]
    found = {
        "state": unfinished or "complete",
        "git_commit": last["git_commit"],
        "data.sha256": record.get("data", {}).get("sha256"),
        "data.items": record.get("data", {}).get("items"),
        **{f"version.{name}": value for name, value in last["versions"].items()},
        **{f"hardware.{name}": value for name, value in last["hardware"].items()},
        **{f"failed.{slugs([name], LONGEST_PART)[name]}": reason for name, reason in record.get("failed_checkpoints", {}).items()},
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _summary_table(summary: pl.DataFrame) -> TrackedTable:
    return TrackedTable(tuple(summary.columns), summary.rows())


def _items_table(store: Store, record: Mapping[str, Any]) -> TrackedTable:
    """The sample of the items that report.html shows, one row each."""
    sample = draw_sample(store, {one["checkpoint_id"]: one["digest"] for one in record.get("checkpoints", [])})
    name = ("checkpoint_id", "variant", "language", "trial", "item_id", "domain", "kind", "match", "pcs")
    sides = [f"{side}_{what}" for side in SIDES for what in ("question", "options", "option", "probs", "replies", "reasoning")]
    rows = []
    for case in sample.cases:
        row = [case[key] for key in name]
        for side in SIDES:
            asked, said = sample.questions[case["question"]][side], case[side]
            row += [asked["question"], _lines(asked["options"]), said["option"]]
            row.append(None if said["probs"] is None else " ".join(f"{one:.4f}" for one in said["probs"]))
            row += [_lines(reply[what] for reply in said["replies"]) for what in ("text", "reasoning")]
        rows.append(tuple(row))
    return TrackedTable((*name, *sides), rows)


def _lines(texts: Iterable[str | None]) -> str | None:
    """Texts one below the other; None where there are none."""
    there = [text for text in texts if text is not None]
    return "\n".join(there) if there else None
