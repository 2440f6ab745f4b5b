"""What a training task asks of the cluster. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wdct_dist.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TaskSize:
    """Of each worker, and how many work together."""

    cpus: float
    gpus: int
    workers: int = 1


def size_task(cpus: float | None, gpus: int | None, nodes: Sequence[Mapping[str, float]], *, workers: int = 1) -> TaskSize:
    """What `resources` asks for, held against what each node has; `ConfigError` where the nodes do not have it.

    Where nothing is asked: a GPU and one core where there are GPUs, else all cores of the smallest node, so that every node can take one;
    with several workers as many of them as leave room for all.
    """
    all_gpus = [int(node.get("GPU", 0)) for node in nodes]
    wanted_gpus = gpus if gpus is not None else min(1, max(all_gpus, default=0))
    fit = [node for node in nodes if node.get("GPU", 0) >= wanted_gpus and node.get("CPU", 0) > 0]
    if not fit:
        raise ConfigError(f"resources.gpus: {wanted_gpus} came, and no node of the cluster has a GPU; use 0 here, or join one with GPUs.")
    all_cpus = [float(node["CPU"]) for node in fit]
    wanted_cpus = cpus if cpus is not None else 1.0 if wanted_gpus else max(1.0, math.floor(min(all_cpus)))
    if wanted_cpus > max(all_cpus):
        raise ConfigError(f"resources.cpus: {wanted_cpus:g} came, and the largest node that could train has {max(all_cpus):g} cores.")
    if workers > 1 and cpus is None:
        while wanted_cpus > 1 and _num_places(fit, wanted_cpus, wanted_gpus) < workers:
            wanted_cpus -= 1.0
    if (places := _num_places(fit, wanted_cpus, wanted_gpus)) < workers:
        each = f"{wanted_cpus:g} cores" + (f" and {wanted_gpus} GPU" if wanted_gpus else "")
        raise ConfigError(f"resources.workers: {workers} came, and the cluster has room for {places} of {each} at once; give fewer.")
    return TaskSize(wanted_cpus, wanted_gpus, workers)


def _num_places(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: int) -> int:
    return sum(min(int(node["CPU"] // cpus), int(node.get("GPU", 0)) // gpus if gpus else sys.maxsize) for node in nodes)
