"""Ten million rows through the whole pipeline with scripted engines: rows a second, and the driver's peak memory.

    .venv/bin/python benchmarks/bench_rows.py [--items 25000] [--checkpoints 10] [--trials 10] [--engines 2] [--shard-size 4096]

Items are generated (two options, both orders, both sides: 4 prompts an item), so rows = 4 × items × checkpoints × trials. The command
that is measured is `wdct evaluate` as a user calls it: audit, prompts, dispatch on Ray, answers on disk, metric tables, report.
Driver memory is the peak resident size of that process, its scoring included; Ray's and the engines' processes are not the driver.
To see that it does not grow with the rows, compare two sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import polars as pl

DRIVER = """
import resource, sys, json
from wdct_dist.cli.main import main
code = main(sys.argv[1:])
print(json.dumps({"exit": code, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
CONFIG = """
run_dir: {run}
data: {{path: {data}}}
checkpoints: [{checkpoints}]
trials: {trials}
sampling: {{temperature: 1.0}}
engine: {{kind: scripted}}
dispatch: {{num_engines: {engines}, shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 100}}
"""


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("items", 25_000), ("checkpoints", 10), ("trials", 10), ("engines", 2), ("shard-size", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_items(folder / "items.jsonl", options.items)
        run = folder / "run"
        (folder / "c.yaml").write_text(
            CONFIG.format(
                run=run,
                data=folder / "items.jsonl",
                checkpoints=", ".join(f"c{number}" for number in range(options.checkpoints)),
                trials=options.trials,
                engines=options.engines,
                shard_size=options.shard_size,
            )
        )
        began = time.perf_counter()
        output = subprocess.run(
            [sys.executable, "-c", DRIVER, "evaluate", str(folder / "c.yaml")], check=True, capture_output=True, text=True
        ).stdout
        seconds = time.perf_counter() - began
        driver = json.loads(output.splitlines()[-1])
        assert driver["exit"] == 0
        rows = pl.scan_ipc(str(run / "answers" / "*.arrow")).select(pl.len()).collect().item()
        assert rows == 4 * options.items * options.checkpoints * options.trials
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        units = [event for event in events if event["event"] == "unit done"]
        first = next(event["time"] for event in events if event["event"] == "engine starting")
        dispatching = (datetime.fromisoformat(units[-1]["time"]) - datetime.fromisoformat(first)).total_seconds()
        print(
            json.dumps(
                {
                    **vars(options),
                    "rows": rows,
                    "units": len(units),
                    "seconds": round(seconds, 1),
                    "rows_per_s": round(rows / seconds),
                    "dispatch_seconds": round(dispatching, 1),
                    "dispatch_rows_per_s": round(rows / dispatching),
                    "driver_peak_mib": round(driver["peak_mib"]),
                    "answers_mib": round(sum(path.stat().st_size for path in (run / "answers").iterdir()) / 2**20),
                }
            )
        )


if __name__ == "__main__":
    main()
