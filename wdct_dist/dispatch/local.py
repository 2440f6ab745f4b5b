"""The same work without Ray: one engine in this process, unit after unit. For debugging and for machines without Ray."""

from __future__ import annotations

import time

from wdct_dist.config.schema import Reuse
from wdct_dist.dispatch.faults import Fault, classify, reason
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.scheduler import Load, Record, Scheduler
from wdct_dist.dispatch.sharing import merge_instead, share_adapters, sharers
from wdct_dist.dispatch.worker import Worker, WorkerSpec


class LocalPool:
    """A pool of one engine in this process; see `pool.Pool`."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def begin(self, num_units: int = 0) -> None:
        """There is nothing to begin."""

    def run(self, scheduler: Scheduler, specs: dict[str, WorkerSpec], journal: Journal, interrupts: Interrupts) -> None:
        kept = False
        specs = dict(specs)
        share_adapters(specs, scheduler.costs, journal, on_gpu=False)
        try:
            self._run(scheduler, specs, journal, interrupts)
            kept = interrupts.requested is None
        finally:
            interrupts.when_requested = None
            if not kept:
                self.close()

    def rest(self) -> None:
        """There is nothing to be noticed."""

    def end(self) -> None:
        self.close()

    def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _load(self, checkpoint_id: str, specs: dict[str, WorkerSpec], scheduler: Scheduler, journal: Journal) -> None:
        """Leaves no worker where the checkpoint does not start."""
        while True:
            if self._worker is not None:
                if _swap(self._worker, checkpoint_id, specs, scheduler, journal):
                    return
                self.close()
            self._worker = _start(checkpoint_id, specs, scheduler, journal)
            if self._worker is None or specs[checkpoint_id].sharing is None:
                return

    def _run(self, scheduler: Scheduler, specs: dict[str, WorkerSpec], journal: Journal, interrupts: Interrupts) -> None:
        while not scheduler.finished:
            if interrupts.requested is not None:
                journal.stopping(interrupts.requested)
                scheduler.stop()
            action = scheduler.next(0)
            if action is None:
                break
            if isinstance(action, Load):
                self._load(action.checkpoint_id, specs, scheduler, journal)
                interrupts.when_requested = None if self._worker is None else self._worker.stop
                if self._worker is not None and (upcoming := scheduler.upcoming(0)) is not None:
                    self._worker.prefetch(specs[upcoming])
                continue
            journal.unit_given(0, action.unit)
            try:
                if isinstance(action, Record):
                    report = (self._worker or Worker(specs[action.unit.checkpoint_id])).record(action.unit, action.error)
                else:
                    assert self._worker is not None
                    report = self._worker.run(action.unit)
            except Exception as error:
                if classify(error) is not Fault.engine_lost:
                    raise
                journal.say("engine lost", engine=0, reason=reason(error))
                scheduler.lost(0, reason(error))
                self.close()
                continue
            scheduler.done(0, action.unit, report.seconds)
            journal.unit_done(0, report)
            if report.stopped is not None:
                interrupts.request(report.stopped)


def _swap(worker: Worker, checkpoint_id: str, specs: dict[str, WorkerSpec], scheduler: Scheduler, journal: Journal) -> bool:
    """Whether the live engine has taken the checkpoint; where not, a fresh one is to be tried."""
    began = time.monotonic()
    spec = specs[checkpoint_id]
    if spec.config.dispatch.reuse is Reuse.restart or spec.sharing != worker.sharing:
        return False
    try:
        swap = worker.swap(spec)
    except Exception as error:
        journal.swap_failed(0, checkpoint_id, error)
        if spec.sharing is not None:
            merge_instead([checkpoint_id], f"sharing an engine failed: {reason(error)}", specs, scheduler.costs, journal)
        return False
    seconds = time.monotonic() - began
    scheduler.started(checkpoint_id, seconds, swapped=True)
    journal.engine_swapped(0, checkpoint_id, swap, seconds)
    return True


def _start(checkpoint_id: str, specs: dict[str, WorkerSpec], scheduler: Scheduler, journal: Journal) -> Worker | None:
    began = time.monotonic()
    spec = specs[checkpoint_id]
    worker = Worker(spec)
    try:
        facts = worker.start()
    except Exception as error:
        if classify(error, starting=True) not in (Fault.checkpoint, Fault.engine_lost):
            raise
        why = reason(error)
        if spec.sharing is not None:
            journal.start_failed(0, checkpoint_id, why, is_final=False)
            merge_instead(sharers(spec.sharing, specs), f"sharing an engine failed: {why}", specs, scheduler.costs, journal)
            return _start(checkpoint_id, specs, scheduler, journal)
        journal.start_failed(0, checkpoint_id, why, is_final=scheduler.start_failed(0, checkpoint_id, why, allowed=0))
        return None
    seconds = time.monotonic() - began
    scheduler.started(checkpoint_id, seconds)
    journal.engine_started(0, checkpoint_id, facts, seconds)
    return worker
