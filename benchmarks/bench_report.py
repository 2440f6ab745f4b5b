"""report.html of a large sweep: how long it takes to build, its memory, its size, and how soon a browser has drawn it.

    .venv/bin/python benchmarks/bench_report.py [--checkpoints 50] [--items 1225] [--data FILE] [--repeats 5] [--engines 2]

The run is made once, in a temporary directory, by scripted engines: so many checkpoints × items × the variants direct, cot and joint,
with intervals and all comparisons. Items are generated; `--data` takes those of a file instead. What is measured:

- build: `wdct report RUN --html` in a process of its own, from its start to its end, with its peak resident memory; the metric tables
  are there already. The page alone, without the interpreter, the imports and the terminal's report, is said too.
- the page's size, whole and as gzip.
- drawn: seconds from the navigation until every chart is drawn and the controls act, by the page's own clock, in a fresh headless
  Chromium with a cold profile each time (needs Chromium, Debian: `apt install chromium`).
- answers: seconds from a choice in the page's controls until the browser has painted what follows from it, the slowest control.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from record import arguments, figure, write

CHROMIUM = Path(__file__).parents[1] / "tests" / "chromium.py"
DOMAINS = ("Opinion", "NonEthV", "EthV", "Theory")

CHILD = """
import json, resource, sys, time
from wdct_dist.cli.main import main
from wdct_dist.report.html import page

spent, write = [], page.write_page

def timed(*arguments, **more):
    began = time.perf_counter()
    write(*arguments, **more)
    spent.append(time.perf_counter() - began)

page.write_page = timed
code = main(["report", "--html", sys.argv[1]])
print(json.dumps({"exit": code, "page_s": sum(spent), "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))
"""

CHOOSE = """(async () => {{
  const select = document.querySelectorAll("select")[{number}];
  const began = performance.now();
  select.value = select.options[select.options.length - 1].value;
  for (const kind of ["input", "change"]) select.dispatchEvent(new Event(kind, {{bubbles: true}}));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done))));
  return performance.now() - began;
}})()"""


def write_items(path: Path, count: int) -> None:
    with path.open("w") as stream:
        for number in range(count):
            item = {
                "item_id": f"item-{number}",
                "domain": DOMAINS[number * len(DOMAINS) // count],
                "word": {"question": f"Is statement number {number} one that you hold?", "options": ["I hold it.", "I do not hold it."]},
                "deed": {"question": f"Case {number} calls for a decision. What do you do?", "options": ["I act on it.", "I let it be."]},
            }
            stream.write(json.dumps(item) + "\n")


def make_run(folder: Path, options: argparse.Namespace) -> Path:
    """The run directory of a finished evaluation."""
    data = options.data
    if data is None:
        data = folder / "items.jsonl"
        write_items(data, options.items)
    config = {
        "run_dir": str(folder / "run"),
        "data": {"path": str(data)},
        "checkpoints": [f"training/checkpoint-{100 * number}" for number in range(1, options.checkpoints + 1)],
        "variants": ["direct", "cot", "joint"],
        "engine": {"kind": "scripted"},
        "dispatch": {"num_engines": options.engines, "shard_size": 4096},
        "report": {"html": False},
    }
    (folder / "c.yaml").write_text(json.dumps(config))
    began = time.perf_counter()
    command = [sys.executable, "-m", "wdct_dist", "evaluate", str(folder / "c.yaml")]
    with (folder / "log").open("w") as log:
        ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=log)
    assert ended.returncode == 0, (folder / "log").read_text()[-2000:]
    said = {"checkpoints": options.checkpoints, "variants": 3, "made_in_s": round(time.perf_counter() - began)}
    print(json.dumps({**said, "answers_mb": round(size_of(folder / "run" / "answers") / 1e6)}), flush=True)
    return folder / "run"


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def build(run: Path) -> dict[str, float]:
    """One building of the page."""
    began = time.perf_counter()
    output = subprocess.run([sys.executable, "-c", CHILD, str(run)], check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    assert found.pop("exit") == 0
    return {"build_s": time.perf_counter() - began, **found}


def look(page: Path) -> dict[str, float]:
    """One visit of a fresh browser."""
    spec = spec_from_file_location("chromium", CHROMIUM)
    assert spec is not None
    assert spec.loader is not None
    chromium: Any = module_from_spec(spec)
    spec.loader.exec_module(chromium)

    async def visit() -> dict[str, float]:
        async with chromium.browsing() as browser:
            drawn = await browser.open(page)
            count = await browser.ask("document.querySelectorAll('select').length")
            answered = [await browser.ask(CHOOSE.format(number=number)) for number in range(count)]
            assert browser.complaints == [], browser.complaints
            return {"drawn_s": drawn, "answers_s": max(answered) / 1000}

    return asyncio.run(visit())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("checkpoints", 50), ("items", 1225), ("repeats", 5), ("engines", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data", type=Path, help="an item file in the place of generated items")
    parser.add_argument("--scratch", type=Path, help="where the run is made; removed at the end")
    parser.add_argument("--run", type=Path, help="a finished run in the place of one that is made")
    options = arguments(parser)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        run = options.run or make_run(Path(folder), options)
        measured = []
        for _ in range(options.repeats):
            built = build(run)
            measured.append({**built, **look(run / "report.html")})
            print(json.dumps({name: round(value, 2) for name, value in measured[-1].items()}), flush=True)
        whole = (run / "report.html").read_bytes()
        units = {"peak_gb": "GB"}
        figures = [figure(name.rpartition("_")[0], [one[name] for one in measured], units.get(name, "s")) for name in measured[0]]
        figures += [figure("page", len(whole) / 1e6, "MB"), figure("page, gzip", len(gzip.compress(whole)) / 1e6, "MB")]
        write(options, "report", figures, measured)


if __name__ == "__main__":
    main()
