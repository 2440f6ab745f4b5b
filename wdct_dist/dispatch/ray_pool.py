"""The pool in a Ray cluster: joined or started with the first units, left or ended with `close`."""

from __future__ import annotations

import contextlib

import ray

from wdct_dist.config.schema import Config
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.pool_size import PoolSize, size_pool
from wdct_dist.dispatch.ray_cluster import cluster
from wdct_dist.dispatch.ray_driver import Hosted, RayDriver, end_engines
from wdct_dist.dispatch.ray_metrics import RayMetrics, run_name
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.worker import WorkerSpec


class RayPool:
    """Actors with an engine each, in the cluster that the configuration names; see `pool.Pool`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cluster = contextlib.ExitStack()
        self._metrics: RayMetrics | None = None
        """None: there is no cluster yet."""
        self._size: PoolSize | None = None
        self._engines: dict[int, Hosted] = {}
        """By place."""

    def run(self, scheduler: Scheduler, specs: dict[str, WorkerSpec], journal: Journal, interrupts: Interrupts) -> None:
        config = self._config
        if self._metrics is None:
            self._cluster.enter_context(cluster(config.dispatch))
            self._metrics = RayMetrics(run_name(config.run_dir))
        size = size_pool(config.dispatch, config.engine.kind, scheduler.num_pending, ray.cluster_resources())
        if self._size is not None and (size.cpus, size.gpus) != (self._size.cpus, self._size.gpus):
            end_engines(self._engines)  # the cluster has changed, and what an engine asks of it too
        self._size = size
        scheduler.set_places(size.num_engines)
        journal.watch = self._metrics
        journal.say("pool", engines=size.num_engines, cpus=size.cpus, gpus=size.gpus)
        RayDriver(scheduler, size, specs, journal, interrupts, self._engines).run()

    def close(self) -> None:
        with self._cluster:
            end_engines(self._engines)
