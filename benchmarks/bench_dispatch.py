"""Dispatch and tables: how soon scripted engines are kept waiting, what the driver needs, how fast rows get to disk.

    .venv/bin/python benchmarks/bench_dispatch.py [--parts paced rows simulation] [--engines 1 2 4 8 16 32 64] [--json]
        [--delay-s 0.05] [--paced-s 20] [--shard-size 32]
        [--rows-engines 1 2] [--rows-items 25000] [--rows-checkpoints 10] [--rows-trials 10] [--rows-shard-size 4096] [--seeds 1]

The command that is measured is `wdct evaluate` as a user calls it, on a local Ray whose cores the engines share. Three parts:

    paced        engines that wait instead of working, `--delay-s` a prompt, so that many fit on few cores. For each number of engines:
                 units a second, and the part of the engines' time in which dispatch keeps them busy. An engine is busy for prompts ×
                 delay; its time goes from its own start to the end of the last unit of the run, so that gaps between units, waiting for
                 the driver and the tail all count. Each engine has `--paced-s` seconds of work beside the time in which all of them start
    rows         engines that answer at once: audit, prompts, dispatch, answers on disk, tables, report; rows a second of all that, and
                 while dispatching. Items are generated (two options, both orders, both sides): rows = 4 × items × checkpoints × trials
    simulation   the same scheduler on paper at 1,024 engines (`simulate.py`)

Driver memory is the peak resident size of the command's own process, its scoring included; Ray's and the engines' are not the driver. To
see that it does not grow with the rows, compare two sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import simulate
from record import Figure, arguments, figure, write
from side_by_side import events_of, moment

DRIVER = """
import resource, sys, json
from wdct_dist.cli.main import main
code = main(sys.argv[1:])
print(json.dumps({"exit": code, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
PACED = """
run_dir: {run}
checkpoints: [demo]
trials: {trials}
engine: {{kind: scripted, scripted: {{delay_s: {delay_s}}}}}
dispatch: {{num_engines: {engines}, engine_cpus: {cpus}, shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 0}}
report: {{html: false}}
"""
ROWS = """
run_dir: {run}
data: {{path: {data}}}
checkpoints: [{checkpoints}]
trials: {trials}
sampling: {{temperature: 1.0}}
engine: {{kind: scripted}}
dispatch: {{num_engines: {engines}, engine_cpus: {cpus}, shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 100}}
"""
NUM_PROMPTS = 448
"""Of the bundled items, with every order of their options."""

START_S = 1.5
"""Seconds that one more engine takes to start on a core; the work must outlast them, or the last engines find nothing to do."""


def evaluated(run: Path, config: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the command, and what its process says at its end."""
    path = run.with_suffix(".yaml")
    path.write_text(config)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", DRIVER, "evaluate", str(path)], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr[-2000:]
    driver: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert driver["exit"] == 0, done.stderr[-2000:]
    return seconds, driver


def cores_an_engine(engines: int) -> float:
    return int(1000 * (os.cpu_count() or 1) / engines) / 1000


def paced(scratch: Path, engines: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run with engines that wait; its figures."""
    work_s = options.paced_s + START_S * engines / (os.cpu_count() or 1)
    trials = max(1, round(engines * work_s / options.delay_s / NUM_PROMPTS))
    run = scratch / f"paced{engines}-{time.monotonic_ns()}"
    settings = {"delay_s": options.delay_s, "shard_size": options.shard_size, "cpus": cores_an_engine(engines)}
    seconds, driver = evaluated(run, PACED.format(run=run, trials=trials, engines=engines, **settings))
    events = events_of(run)
    started = {event["engine"]: moment(event) for event in events if event["event"] == "engine started"}
    done = [event for event in events if event["event"] == "unit done"]
    assert sum(event["rows"] for event in done) == trials * NUM_PROMPTS
    last = {engine: max(moment(event) for event in done if event["engine"] == engine) for engine in {event["engine"] for event in done}}
    full_until, ended = min(last.values()), max(last.values())
    busy_s = options.delay_s * sum(event["rows"] for event in done)
    before = options.delay_s * sum(event["rows"] for event in done if moment(event) <= full_until)
    # units under way at that moment are counted with the part that lies before it
    before += sum(max(0.0, options.delay_s * event["rows"] - (moment(event) - full_until)) for event in done if moment(event) > full_until)
    return {
        "engines": engines,
        "engines_started": len(started),
        "units": len(done),
        "seconds": seconds,
        "units_per_s": len(done) / (ended - min(started.values())),
        "starting_s": max(started.values()) - min(started.values()),
        "busy_share": busy_s / sum(ended - start for start in started.values()),
        "busy_share_before_tail": before / sum(full_until - start for start in started.values()),
        "tail_s": ended - full_until,
        "driver_peak_mib": driver["peak_mib"],
    }


def rows(scratch: Path, engines: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run with engines that answer at once; its figures."""
    data = scratch / "items.jsonl"
    if not data.exists():
        write_items(data, options.rows_items)
    run = scratch / f"rows{engines}-{time.monotonic_ns()}"
    checkpoints = ", ".join(f"c{number}" for number in range(options.rows_checkpoints))
    given = {"trials": options.rows_trials, "shard_size": options.rows_shard_size, "cpus": cores_an_engine(engines)}
    seconds, driver = evaluated(run, ROWS.format(run=run, data=data, checkpoints=checkpoints, engines=engines, **given))
    count = pl.scan_ipc(str(run / "answers" / "*.arrow")).select(pl.len()).collect().item()
    assert count == 4 * options.rows_items * options.rows_checkpoints * options.rows_trials
    events = events_of(run)
    units = [event for event in events if event["event"] == "unit done"]
    dispatching = moment(units[-1]) - next(moment(event) for event in events if event["event"] == "engine starting")
    return {
        "engines": engines,
        "rows": count,
        "units": len(units),
        "seconds": seconds,
        "rows_per_s": count / seconds,
        "dispatch_seconds": dispatching,
        "dispatch_rows_per_s": count / dispatching,
        "units_per_s": len(units) / dispatching,
        "driver_peak_mib": driver["peak_mib"],
        "answers_mib": sum(path.stat().st_size for path in (run / "answers").iterdir()) / 2**20,
    }


def write_items(path: Path, count: int) -> None:
    with path.open("w") as stream:
        for number in range(count):
            item = {
                "item_id": f"item-{number}",
                "domain": ("Opinion", "NonEthV")[number % 2],
                "word": {"question": f"Is statement number {number} one that you hold?", "options": ["I hold it.", "I do not hold it."]},
                "deed": {"question": f"Case {number} calls for a decision. What do you do?", "options": ["I act on it.", "I let it be."]},
            }
            stream.write(json.dumps(item) + "\n")


PACED_FIGURES = {
    "engines_started": ("of them there before the work was over", ""),
    "units_per_s": ("units a second", "/s"),
    "busy_share": ("part of the engines' time that is work", ""),
    "busy_share_before_tail": ("the same before the first one has nothing more to do", ""),
    "driver_peak_mib": ("peak memory of the driver", "MiB"),
}
ROWS_FIGURES = {
    "rows_per_s": ("rows a second, whole command", "/s"),
    "dispatch_rows_per_s": ("rows a second while dispatching", "/s"),
    "units_per_s": ("units a second while dispatching", "/s"),
    "driver_peak_mib": ("peak memory of the driver", "MiB"),
}


def figures_of(found: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    lines = []
    for part, named in (("paced", PACED_FIGURES), ("rows", ROWS_FIGURES)):
        by_engines = defaultdict(list)
        for one in found[part]:
            by_engines[one["engines"]].append(one)
        for engines, runs in by_engines.items():
            size = f", {runs[0]['rows']:,} rows" if part == "rows" else ""
            where = f"{part}, {engines} engine{'s' if engines > 1 else ''}{size}"
            lines += [figure(f"{where}: {what}", [one[name] for one in runs], unit) for name, (what, unit) in named.items()]
    if found["simulation"]:
        where = f"simulation, {found['simulation'][0]['engines']:,} engines, {found['simulation'][0]['checkpoints']} checkpoints"
        lines += [figure(f"{where}: {what}", [one[name] for one in found["simulation"]]) for name, what in simulate.FIGURES.items()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("paced", "rows", "simulation"), default=["paced", "rows", "simulation"])
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--delay-s", type=float, default=0.05, help="time that a prompt takes a paced engine")
    parser.add_argument("--paced-s", type=float, default=20.0, help="work for each paced engine, beside the time of the starts")
    parser.add_argument("--shard-size", type=int, default=32, help="of paced engines")
    parser.add_argument("--rows-engines", type=int, nargs="+", default=[2])
    for name, default in (("items", 25_000), ("checkpoints", 10), ("trials", 10), ("shard-size", 4096)):
        parser.add_argument(f"--rows-{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="simulated runs")
    options = arguments(parser)
    found: dict[str, list[dict[str, Any]]] = {"paced": [], "rows": [], "simulation": []}

    def tell(part: str, one: dict[str, Any]) -> None:
        found[part].append(one)
        print(json.dumps({"part": part} | {name: round(value, 4) for name, value in one.items()}), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for engines in options.engines if "paced" in options.parts else ():
                tell("paced", paced(Path(folder), engines, options))
            for engines in options.rows_engines if "rows" in options.parts else ():
                tell("rows", rows(Path(folder), engines, options))
    for seed in range(options.seeds) if "simulation" in options.parts else ():
        tell("simulation", simulate.run(1024, 200, 4.0, 0.0, seed, 2048))
    write(options, "-".join(["dispatch", *options.parts]), figures_of(found), found)


if __name__ == "__main__":
    main()
