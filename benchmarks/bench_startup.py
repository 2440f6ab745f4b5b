"""From the command to the first answer on disk, part by part, warm and cold.

    .venv/bin/python benchmarks/bench_startup.py [--repeats 3] [--cold 1] [--items 4] [--dtype bfloat16] [--model MODEL] [--json]
                                                 [--watch MODULE:FUNCTION …]

The command is `wdct evaluate` on Ray with one engine and a shard of 4 × items prompts. The parts follow each other and make up the whole;
what runs beside them is said apart. Begin and end of each are read from the run's events and from the times of the program's own
functions, which `watch/sitecustomize.py` takes in the driver and in the engine's process; the program is as it is.

    warm    everything has run before: files in the page cache, the small model dequantised
    cold    files of Python's packages and of the model dropped from the page cache (but what other processes have mapped), caches of
            the project and of vLLM empty: the GGUF file is dequantised again
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from record import arguments, figure, write
from side_by_side import SMALL_MODEL, events_of, moment

CONFIG = """
run_dir: {run}
data: {{limit: {items}}}
checkpoints: [{model}]
engine: {{kind: vllm, dtype: {dtype}, max_model_len: 1024}}
metrics: {{bootstrap_resamples: 100}}
"""
MAIN = "wdct_dist.cli.main:main"
LOAD = "wdct_dist.config.load:load_config"
DESCRIBE = "wdct_dist.pipeline:find_checkpoints"
PREPARE = "wdct_dist.pipeline:prepare"
CONNECT = "wdct_dist.dispatch.ray_cluster:_connect"
START = "wdct_dist.dispatch.worker:Worker.start"
FIRST = "wdct_dist.dispatch.worker:Worker.run"
BUILD = "wdct_dist.engine.vllm_start:build_llm"
ENGINE = "vllm.entrypoints.llm:LLM.__init__"
WARM_UP = "wdct_dist.engine.vllm_start:warm_up"
WATCHED = (MAIN, LOAD, DESCRIBE, PREPARE, CONNECT, START, FIRST, BUILD, ENGINE, WARM_UP)
WATCH = Path(__file__).parent / "watch"

PARTS = {
    "interpreter, imports of the command": lambda at: at["asked"],
    "configuration, imports of the pipeline": lambda at: at[MAIN]["began"],
    "description of the checkpoint": lambda at: at[DESCRIBE]["began"],
    "items, prompts, run directory": lambda at: at[DESCRIBE]["ended"],
    "waiting for Ray": lambda at: at["plan"],
    "process of the engine": lambda at: at["pool"],
    "imports of vLLM": lambda at: at[START]["began"],
    "engine": lambda at: at[ENGINE]["began"],
    "warm-up": lambda at: at[WARM_UP]["began"],
    "tokenizer, labels, report to the driver": lambda at: at[WARM_UP]["ended"],
    "first shard": lambda at: at["engine started"],
    "": lambda at: at["unit done"],
}
"""When each part begins: where the one before has ended."""


def command(scratch: Path, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """One command; its parts in seconds, and what ran beside them."""
    run, log = scratch / f"run{time.monotonic_ns()}", scratch / f"watch{time.monotonic_ns()}"
    path = run.with_suffix(".yaml")
    path.write_text(CONFIG.format(run=run, items=options.items, model=options.model, dtype=options.dtype))
    search = os.pathsep.join([str(WATCH), *filter(None, [os.environ.get("PYTHONPATH")])])
    watched = {"WDCT_WATCH": str(log), "WDCT_WATCHED": " ".join([*WATCHED, *options.watch]), "PYTHONPATH": search}
    asked = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "wdct_dist", "evaluate", str(path)], capture_output=True, text=True, env=os.environ | watched | environment
    )
    ended = time.time()
    assert done.returncode == 0, f"wdct evaluate ended with {done.returncode}: {done.stderr[-2000:]}"
    at: dict[str, Any] = {"asked": asked}
    spans = [json.loads(line) for line in log.read_text().splitlines()]
    for span in spans:
        at.setdefault(span["name"], span)
    for event in events_of(run):
        at.setdefault(event["event"], moment(event))
    begins = [when(at) for when in PARTS.values()]
    assert begins == sorted(begins), f"the parts do not follow each other: {dict(zip(PARTS, begins, strict=True))}"
    parts = {name: after - before for name, before, after in zip(PARTS, begins, begins[1:], strict=False)}
    beside = {"start of Ray": at[CONNECT]["ended"] - at[CONNECT]["began"]}
    beside |= {name: sum(one["ended"] - one["began"] for one in spans if one["name"] == name) for name in options.watch}
    return {"first_answer_s": begins[-1] - asked, "command_s": ended - asked, "parts": parts, "beside": beside}


def drop_from_page_cache(folders: list[Path]) -> int:
    """Asks the kernel to forget the files in `folders`; returns how many bytes they have. Mapped ones stay."""
    size = 0
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                file = os.open(path, os.O_RDONLY)
                size += os.fstat(file).st_size
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="warm commands; one more before them is not counted")
    parser.add_argument("--cold", type=int, default=1, help="cold commands")
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--model", default=SMALL_MODEL, help="an entry of `checkpoints`")
    parser.add_argument("--watch", nargs="*", default=[], metavar="MODULE:FUNCTION", help="further functions whose seconds are said")
    options = arguments(parser)
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}

    def tell(kind: str, one: dict[str, Any]) -> None:
        found[kind].append(one)
        print(json.dumps({"kind": kind, **one}), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.repeats:
            command(scratch, options, {})
        for _ in range(options.repeats):
            tell("warm", command(scratch, options, {}))
        for number in range(options.cold):
            size = drop_from_page_cache([Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))])
            print(f"{size / 1e9:.1f} GB of packages dropped from the page cache", file=sys.stderr)
            caches = {name: str(scratch / f"cache{number}" / name) for name in ("WDCT_CACHE", "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR")}
            tell("cold", command(scratch, options, caches))
    figures = []
    for kind, runs in found.items():
        if runs:
            figures.append(figure(f"{kind}: command to first answer", [one["first_answer_s"] for one in runs], "s"))
            figures += [figure(f"{kind}: {name}", [one["parts"][name] for one in runs], "s") for name in runs[0]["parts"]]
            figures += [figure(f"{kind}, beside: {name}", [one["beside"][name] for one in runs], "s") for name in runs[0]["beside"]]
            figures.append(figure(f"{kind}: whole command", [one["command_s"] for one in runs], "s"))
    write(options, "startup", figures, found)


if __name__ == "__main__":
    main()
