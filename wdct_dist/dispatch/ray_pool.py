"""The pool in a Ray cluster: joined or started with the first units, left or ended with `close`."""

from __future__ import annotations

import contextlib
import threading
import time

import ray

from wdct_dist.config.schema import Config
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.pool_size import PoolSize, size_pool
from wdct_dist.dispatch.ray_actors import Ahead
from wdct_dist.dispatch.ray_cluster import Connection, cluster_resources, head_address
from wdct_dist.dispatch.ray_driver import Hosted, RayDriver, end_engines
from wdct_dist.dispatch.ray_head import KNOCK_EVERY_S, HeadLost, HeadWatch
from wdct_dist.dispatch.ray_metrics import RayMetrics, run_name
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.sharing import share_adapters
from wdct_dist.dispatch.worker import WorkerSpec
from wdct_dist.errors import ConfigError


class RayPool:
    """Actors with an engine each, in the cluster that the configuration names; see `pool.Pool`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cluster = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._metrics: RayMetrics | None = None
        """None: there is no cluster."""
        self._head: HeadWatch | None = None
        self._lost: HeadLost | None = None
        """The cluster was lost while nothing was to be done."""
        self._size: PoolSize | None = None
        self._engines: dict[int, Hosted] = {}
        """By place."""
        self._ahead: Ahead | None = None
        """Actors that are made before there is a run for them."""
        self._ending: threading.Thread | None = None

    def begin(self, num_units: int = 0) -> None:
        if self._connection is None:
            self._connection = Connection(self._config.dispatch)
            self._connection.start()
            self._cluster.callback(self._connection.leave)
        if self._metrics is not None or num_units == 0:
            return
        if self._ahead is None:
            self._ahead = Ahead(self._config, self._connection)
            self._cluster.callback(self._ahead.end)
        self._ahead.want(num_units)

    def run(self, scheduler: Scheduler, specs: dict[str, WorkerSpec], journal: Journal, interrupts: Interrupts) -> None:
        config = self._config
        before, self._lost = self._lost, None
        if before is not None and not self._rejoin(before, scheduler, journal, interrupts):
            return
        if self._metrics is None:
            self._join()
        size = size_pool(config.dispatch, config.engine.kind, scheduler.num_pending, cluster_resources())
        if self._size is not None and (size.cpus, size.gpus) != (self._size.cpus, self._size.gpus):
            end_engines(self._engines)  # the cluster has changed, and what an engine asks of it too
        self._size = size
        ahead = [] if self._ahead is None else self._ahead.take(size)
        scheduler.set_places(size.num_engines)
        specs = dict(specs)
        share_adapters(specs, scheduler.costs, journal, on_gpu=size.gpus > 0)
        journal.say("pool", engines=size.num_engines, cpus=size.cpus, gpus=size.gpus, ahead=len(ahead))
        while True:
            journal.watch = self._metrics
            assert self._head is not None
            try:
                RayDriver(scheduler, size, specs, journal, interrupts, self._engines, ahead, self._head).run()
            except HeadLost as lost:
                journal.watch = None
                if not self._rejoin(lost, scheduler, journal, interrupts):
                    return
            else:
                return

    def rest(self) -> None:
        try:
            if self._head is not None:
                self._head.check()
        except HeadLost as lost:
            # left at once: Ray would end this process after a minute
            self._lost = lost
            self._engines.clear()
            self._leave()

    def end(self) -> None:
        self._ending = threading.Thread(target=self._end, name="pool-end")
        self._ending.start()

    def close(self) -> None:
        if self._ending is not None:
            self._ending.join()
        self._end()

    def _end(self) -> None:
        try:
            end_engines(self._engines)
        finally:
            self._leave()

    def _join(self) -> None:
        self.begin()
        assert self._connection is not None
        try:
            self._connection.wait()
        except BaseException:
            self._leave()
            raise
        self._head = self._cluster.enter_context(HeadWatch(head_address()))
        self._metrics = RayMetrics(run_name(self._config.run_dir))

    def _rejoin(self, lost: HeadLost, scheduler: Scheduler, journal: Journal, interrupts: Interrupts) -> bool:
        """Waits until there is a cluster again, and joins it; returns whether there is. Else all places are given up."""
        journal.say("head lost", reason=str(lost))
        wait_s = self._config.dispatch.head_wait_s
        deadline = time.monotonic() + wait_s
        self._leave()
        while interrupts.requested is None and not ray.is_initialized():  # else it was not ours to leave
            try:
                self._join()
            except ConfigError:
                if time.monotonic() > deadline:
                    break
                time.sleep(KNOCK_EVERY_S)
            else:
                journal.say("head back")
                return True
        if interrupts.requested is None:
            why = f"{lost}, and was not back after dispatch.head_wait_s = {wait_s:g}; start it again, and give the same command"
            for place in range(scheduler.num_places):
                scheduler.park(place)
                scheduler.give_up(place, why)
        return False

    def _leave(self) -> None:
        self._connection = self._metrics = self._head = self._ahead = None
        self._cluster.close()
