"""Actors that host a worker each, and those that are made ahead: their processes import what an engine needs, which is most of a small
model's start, while checkpoints are still described and prompts written.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import Any

import ray

from wdct_dist.config.schema import Config
from wdct_dist.dispatch.pool_size import PoolSize, size_pool
from wdct_dist.dispatch.ray_cluster import Connection, cluster_resources
from wdct_dist.dispatch.worker import Worker, WorkerSpec

_HOSTS = ray.remote(Worker)


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor, and the call that is answered when the cluster has placed it."""

    handle: Any
    placed: Any


def make_actor(size: PoolSize, config: Config, spec: WorkerSpec | None) -> Actor:
    """`spec` None: it is to be had with the first checkpoint."""
    handle = _HOSTS.options(
        num_cpus=size.cpus,
        num_gpus=size.gpus,
        max_restarts=0,
        # a thread for each unit in flight, one for records and closing
        max_concurrency=config.dispatch.units_in_flight + 1,
    ).remote(spec)
    return Actor(handle, handle.__ray_ready__.remote())


def kill(handle: Any) -> None:
    with contextlib.suppress(Exception):
        ray.kill(handle, no_restart=True)


class Ahead:
    """Makes actors in a thread of its own as soon as Ray is there. What it cannot make is made, or refused, by whoever needs it."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._size: PoolSize | None = None
        self._actors: list[Actor] = []
        self._wanted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="actors-ahead", daemon=True)
        self._thread.start()

    def want(self, num_units: int) -> None:
        """There will be at least so many units; returns at once."""
        self._wanted.put(num_units)

    def take(self, size: PoolSize) -> list[Actor]:
        """The actors of a pool of that size, once; others are ended."""
        self._wanted.put(None)
        self._thread.join()
        actors, self._actors = self._actors, []
        is_like = self._size is not None and (self._size.cpus, self._size.gpus) == (size.cpus, size.gpus)
        taken = actors[: size.num_engines] if is_like else []
        for actor in actors[len(taken) :]:
            kill(actor.handle)
        return taken

    def end(self) -> None:
        """Ends those that nobody took."""
        self.take(PoolSize(0, 0, 0))

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.wait()
            while (num_units := self._wanted.get()) is not None:
                self._make(num_units)

    def _make(self, num_units: int) -> None:
        config = self._config
        size = size_pool(config.dispatch, config.engine.kind, num_units, cluster_resources())
        if self._size is not None and (self._size.cpus, self._size.gpus) != (size.cpus, size.gpus):
            return  # nodes came or went meanwhile
        self._size = size
        while len(self._actors) < size.num_engines:
            actor = make_actor(size, config, None)
            self._actors.append(actor)
            actor.handle.prepare.remote(config)
