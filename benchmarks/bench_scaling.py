"""64 scripted engines that wait instead of working: the part of their time in which dispatch keeps them busy.

    .venv/bin/python benchmarks/bench_scaling.py [--engines 64] [--seconds 120] [--delay-s 0.25] [--shard-size 32]

The command that is measured is `wdct evaluate` as a user calls it, on a local Ray whose cores the engines share. An engine is busy for
prompts × delay; its time goes from its own start to the end of the last unit of the run, so that gaps between units, waiting for the
driver and the tail all count. The share until the first engine has nothing more to do is given beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

CONFIG = """
run_dir: {run}
checkpoints: [demo]
trials: {trials}
engine: {{kind: scripted, scripted: {{delay_s: {delay_s}}}}}
dispatch: {{num_engines: {engines}, engine_cpus: {cpus}, shard_size: {shard_size}}}
metrics: {{bootstrap_resamples: 0}}
"""
NUM_PROMPTS = 448
"""Of the bundled items, with every order of their options."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="work for each engine")
    parser.add_argument("--delay-s", type=float, default=0.25, help="time that a prompt takes")
    parser.add_argument("--shard-size", type=int, default=32)
    options = parser.parse_args()
    trials = round(options.engines * options.seconds / options.delay_s / NUM_PROMPTS)
    cpus = int(1000 * (os.cpu_count() or 1) / options.engines) / 1000
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        config = Path(scratch) / "c.yaml"
        config.write_text(CONFIG.format(run=run, trials=trials, cpus=cpus, **vars(options)))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(config)], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    started = {event["engine"]: moment(event) for event in events if event["event"] == "engine started"}
    done = [event for event in events if event["event"] == "unit done"]
    assert sum(event["rows"] for event in done) == trials * NUM_PROMPTS
    assert len(started) == options.engines
    last = {event["engine"]: moment(event) for event in done}
    full_until = min(last.values())
    busy_s = options.delay_s * sum(event["rows"] for event in done)
    before = options.delay_s * sum(event["rows"] for event in done if moment(event) <= full_until)
    # units under way at that moment are counted with the part that lies before it
    before += sum(max(0.0, options.delay_s * event["rows"] - (moment(event) - full_until)) for event in done if moment(event) > full_until)
    figures = {
        **vars(options),
        "units": len(done),
        "seconds": round(seconds, 1),
        "starting_s": round(max(started.values()) - min(started.values()), 1),
        "busy_share": round(busy_s / sum(max(last.values()) - start for start in started.values()), 4),
        "busy_share_before_tail": round(before / sum(full_until - start for start in started.values()), 4),
        "tail_s": round(max(last.values()) - full_until, 2),
    }
    print(json.dumps(figures))


def moment(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


if __name__ == "__main__":
    main()
