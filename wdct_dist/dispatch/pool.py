"""The engines of a run, or of several in turn: in the cluster or in this process, as the configuration says."""

from __future__ import annotations

from typing import Protocol

from wdct_dist.config.schema import Config, Executor
from wdct_dist.dispatch import ray_environment
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.worker import WorkerSpec


class Pool(Protocol):
    """Starts engines as they are needed and keeps them until `close`, so that what is wanted next is swapped in."""

    def begin(self, num_units: int = 0) -> None:
        """Has what takes long begin beside what else there is to do, where the pool knows such; returns at once.

        `num_units`: there will be at least so many to do, so that engines for them will not be in vain.
        """

    def run(self, scheduler: Scheduler, specs: dict[str, WorkerSpec], journal: Journal, interrupts: Interrupts) -> None:
        """Does the scheduler's units. `specs` by checkpoint id. Raises what is a fault of ours or of the store.

        After an error or a signal no engine is kept.
        """

    def rest(self) -> None:
        """To be called every few seconds while nothing is to be done, so that a loss of the cluster is noticed."""

    def end(self) -> None:
        """Has what takes long end beside what else there is to do; `close` waits for it. Nothing more is run."""

    def close(self) -> None:
        """Ends the engines, and a Ray that was started for them."""


def open_pool(config: Config) -> Pool:
    """The pool that the configuration names; nothing is started yet."""
    if config.dispatch.executor is Executor.local:
        from wdct_dist.dispatch.local import LocalPool

        return LocalPool()
    ray_environment.prepare()
    from wdct_dist.dispatch.ray_pool import RayPool

    return RayPool(config)
