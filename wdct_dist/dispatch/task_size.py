"""What a training task asks of the cluster. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wdct_dist.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TaskSize:
    cpus: float
    gpus: int


def size_task(cpus: float | None, gpus: int | None, nodes: Sequence[Mapping[str, float]]) -> TaskSize:
    """What `resources.cpus` and `resources.gpus` ask for, held against what each node has; `ConfigError` where no node has it.

    Where nothing is asked: a GPU and one core where there are GPUs, else all cores of the smallest node, so that every node can take one.
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
    return TaskSize(wanted_cpus, wanted_gpus)
