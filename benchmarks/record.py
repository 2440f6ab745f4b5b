"""Results as files: what was measured, with what, on what, and every single repetition.

    options = record.arguments(parser)                  adds --json and parses
    record.write(options, "inference", figures, raw)    writes results/inference-2x-xeon-2026-11-27.json and .md, where --json was given

The JSON holds all of it; the Markdown is made from the JSON alone. results/README.md lists what there is. `record.py` by itself makes
all Markdown of results/ again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wdct_dist.provenance import git_commit, hardware, versions

RESULTS = Path(__file__).parent / "results"
TODAY = "results"
"""Given as FILE: the name is made of theme, hardware and date."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: a figure over its repetitions."""

    what: str
    values: tuple[float, ...]
    unit: str = ""
    """Empty for a ratio or a share."""
    target: str = ""
    """What it was to reach, where something was said beforehand."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def figure(what: str, values: float | Sequence[float], unit: str = "", target: str = "") -> Figure:
    return Figure(what, tuple(values) if isinstance(values, Sequence) else (values,), unit, target)


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line, with `--json` added to it."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=TODAY,
        metavar="FILE",
        help="write the result to FILE, and a table beside it; without FILE to benchmarks/results/THEME-HARDWARE-DATE.json",
    )
    return parser.parse_args()


def write(options: argparse.Namespace, theme: str, figures: Sequence[Figure], raw: Any) -> Path | None:
    """Writes the record of a run, and prints its figures. Returns where the JSON is, or None where `--json` was not given.

    `raw`: the repetitions as they were measured, anything that JSON can hold. Of paths only the last part is kept: where things lie on
    a machine is nobody's business.
    """
    for one in figures:
        print(sentence(one))
    if options.json is None:
        return None
    now = datetime.now(UTC)
    machine = {name: value for name, value in hardware().items() if name != "host"} | {"gpus": gpus()}
    path = Path(options.json)
    if options.json == TODAY:
        path = RESULTS / f"{theme}-{slug(machine)}-{now:%Y-%m-%d}.json"
    record = {
        "theme": theme,
        "date": now.isoformat(timespec="seconds"),
        "command": [without_place(word) for word in ("python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:])],
        "configuration": {name: value for name, value in vars(options).items() if name != "json" and value is not None},
        "commit": git_commit(),
        "versions": versions(),
        "hardware": machine,
        "figures": [asdict(one) for one in figures],
        "raw": raw,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_table(path)
    if path.parent.resolve() == RESULTS.resolve():
        write_index(RESULTS)
    print(f"written: {path.with_suffix('')}.json, .md")
    return path


def sentence(one: Figure) -> str:
    """A figure as a line of text."""
    unit = f" {one.unit}" if one.unit else ""
    spread = f", from {short(min(one.values))} to {short(max(one.values))}, {len(one.values)} times" if len(one.values) > 1 else ""
    return f"{one.what}: {short(one.median)}{unit}{spread}{f' (meant: {one.target})' if one.target else ''}"


def markdown(record: dict[str, Any]) -> str:
    """The table of a record, with all that is needed to repeat it."""
    machine = record["hardware"]
    parts = [*machine["gpus"], f"{machine['cpus']} cores of {machine['processor']}", f"{machine['memory_gib']:g} GiB"]
    lines = [
        f"# {record['theme']}",
        "",
        f"{record['date'][:10]}, {', '.join(parts)}.",
        f"Commit {record['commit'] or 'unknown'}; {', '.join(f'{name} {version}' for name, version in record['versions'].items())}.",
        "",
        f"    {' '.join(record['command'])}",
        "",
    ]
    figures = [Figure(one["what"], tuple(one["values"]), one["unit"], one["target"]) for one in record["figures"]]
    columns = ["what", "median", "from", "to", "times", *(["meant"] if any(one.target for one in figures) else [])]
    lines += [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * 4}{' --- |' * (len(columns) - 5)}"]
    for one in figures:
        cells = [one.what, f"{short(one.median)} {one.unit}".strip(), short(min(one.values)), short(max(one.values)), str(len(one.values))]
        lines.append(f"| {' | '.join([*cells, one.target][: len(columns)])} |")
    return "\n".join(lines) + "\n"


def short(value: float) -> str:
    """A number with three digits that count, and all of its whole ones."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2g}"


def slug(machine: dict[str, Any]) -> str:
    """The hardware in a file's name: its GPUs, or its cores."""
    names = machine["gpus"] or [f"{machine['cpus']}x {machine['processor']}"]
    words = re.findall(r"[a-z0-9]+", f"{f'{len(names)}x ' if machine['gpus'] else ''}{names[0]}".replace("(R)", "").lower())
    return "-".join(word for word in words if word not in ("nvidia", "processor", "cpu", "core"))


def gpus() -> list[str]:
    """The names of the machine's NVIDIA GPUs."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def without_place(text: str) -> str:
    """A text with the last part alone of each absolute path in it; addresses stay."""
    return re.sub(r"(^|[=:,\s'\"\[{])/(?:[^/\s'\"]+/)+", r"\1", text)


def _plain(value: Any) -> Any:
    """The same as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return value.name
    return without_place(value) if isinstance(value, str) else value


def write_table(path: Path) -> None:
    """Writes the table of a record beside it."""
    path.with_suffix(".md").write_text(markdown(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


def write_index(folder: Path) -> None:
    """Writes README.md of a folder of records: each with its date, hardware and command, the newest of a theme first."""
    lines = ["# Results", "", "| theme | date | hardware | command |", "| --- | --- | --- | --- |"]
    records = [(json.loads(path.read_text(encoding="utf-8")), path) for path in folder.glob("*.json")]
    for record, path in sorted(records, key=lambda one: one[0]["date"], reverse=True):
        machine = record["hardware"]
        where = ", ".join([*machine["gpus"], f"{machine['cpus']} cores of {machine['processor']}"])
        name = f"[{record['theme']}]({path.with_suffix('.md').name}) ([JSON]({path.name}))"
        lines.append(f"| {name} | {record['date'][:10]} | {where} | `{' '.join(record['command'][1:])}` |")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for file in RESULTS.glob("*.json"):
        write_table(file)
    write_index(RESULTS)
