"""How many engines a run has, and what each asks of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wdct_dist.config.schema import DispatchConfig, EngineKind
from wdct_dist.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many engines, and what each asks of the cluster."""

    num_engines: int
    cpus: float
    gpus: int


def size_pool(config: DispatchConfig, kind: EngineKind, num_units: int, resources: Mapping[str, float]) -> PoolSize:
    """The pool that the configuration asks for, held against what the cluster has; a `ConfigError` where it cannot fit.

    `resources`: all of the cluster's, in Ray's words: `CPU` and `GPU`, by number.
    """
    all_cpus, all_gpus = float(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    group = config.tensor_parallel_size
    on_gpu = kind is EngineKind.vllm and all_gpus > 0
    if kind is EngineKind.vllm and not on_gpu and group > 1:
        raise ConfigError(
            f"dispatch.tensor_parallel_size: {group} GPUs an engine are asked for, the cluster has none; use 1 here, or join a "
            "cluster with GPUs."
        )
    if on_gpu and group > all_gpus:
        raise ConfigError(
            f"dispatch.tensor_parallel_size: {group} GPUs an engine are asked for, the cluster has {all_gpus}; ask for at most that many."
        )
    engines = config.num_engines or (max(1, all_gpus // group) if on_gpu else 1)
    if on_gpu and engines * group > all_gpus:
        raise ConfigError(
            f"dispatch.num_engines: {engines} engines with {group} GPU(s) each need {engines * group} GPUs, the cluster has "
            f"{all_gpus}; ask for at most {all_gpus // group} engines."
        )
    cpus = config.engine_cpus or (1.0 if on_gpu or kind is EngineKind.endpoint else all_cpus / engines)
    if cpus * engines > all_cpus + 1e-6:
        raise ConfigError(
            f"dispatch.engine_cpus: {engines} engines with {cpus:g} CPU cores each need {cpus * engines:g}, the cluster has "
            f"{all_cpus:g}; ask for fewer cores or engines."
        )
    return PoolSize(max(1, min(engines, num_units)), cpus, group if on_gpu else 0)
