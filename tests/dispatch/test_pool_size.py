"""How many engines there are, on clusters that are only numbers."""

from __future__ import annotations

from typing import Any

import pytest

from wdct_dist.config.schema import DispatchConfig, EngineKind
from wdct_dist.dispatch.pool_size import PoolSize, size_pool
from wdct_dist.errors import ConfigError

CORES = {"CPU": 8.0}
GPUS = {"CPU": 8.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("kind", "num_units", "settings", "pool"),
    [
        pytest.param("vllm", 100, {}, PoolSize(4, 1.0, 1), id="one engine a GPU"),
        pytest.param("vllm", 100, {"tensor_parallel_size": 2}, PoolSize(2, 1.0, 2), id="one engine a group of GPUs"),
        pytest.param("vllm", 3, {}, PoolSize(3, 1.0, 1), id="no more engines than units"),
        pytest.param("scripted", 100, {}, PoolSize(1, 8.0, 0), id="an engine without a model needs no GPU"),
        pytest.param("scripted", 100, {"num_engines": 3, "engine_cpus": 1.5}, PoolSize(3, 1.5, 0), id="cores as asked for"),
        pytest.param("endpoint", 100, {}, PoolSize(1, 1.0, 0), id="an engine that only asks needs one core"),
    ],
)
def test_the_pool_is_as_large_as_the_cluster_and_the_plan_allow(
    kind: str, num_units: int, settings: dict[str, Any], pool: PoolSize
) -> None:
    assert size_pool(DispatchConfig(**settings), EngineKind(kind), num_units, GPUS) == pool


def test_without_gpus_one_engine_has_all_cores() -> None:
    assert size_pool(DispatchConfig(), EngineKind.vllm, 100, CORES) == PoolSize(1, 8.0, 0)


@pytest.mark.parametrize(
    ("resources", "settings", "words"),
    [
        (GPUS, {"num_engines": 5}, ["dispatch.num_engines", "5 engines with 1 GPU(s) each need 5", "ask for at most 4 engines"]),
        (
            GPUS,
            {"num_engines": 3, "tensor_parallel_size": 2},
            ["dispatch.num_engines", "3 engines with 2 GPU(s) each need 6", "ask for at most 2 engines"],
        ),
        (GPUS, {"tensor_parallel_size": 8}, ["dispatch.tensor_parallel_size", "8 GPUs an engine", "the cluster has 4"]),
        (CORES, {"tensor_parallel_size": 2}, ["dispatch.tensor_parallel_size", "2 GPUs an engine", "the cluster has none"]),
        (GPUS, {"engine_cpus": 3}, ["dispatch.engine_cpus", "4 engines with 3 CPU cores each need 12", "the cluster has 8"]),
    ],
)
def test_gpus_and_cores_that_are_not_there_are_named(resources: dict[str, float], settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        size_pool(DispatchConfig(**settings), EngineKind.vllm, 100, resources)
    for word in words:
        assert word in str(refused.value)
