"""The driver: give, collect, record. One Ray actor hosts one engine; rows never come here."""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import dataclass, field
from typing import Any

import ray

from wdct_dist.config.schema import Reuse
from wdct_dist.dispatch.faults import Fault, classify, reason, root_cause
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.pool_size import PoolSize
from wdct_dist.dispatch.ray_actors import Actor, kill, make_actor
from wdct_dist.dispatch.ray_cluster import refuse_needless_token
from wdct_dist.dispatch.ray_head import HeadLost, HeadWatch
from wdct_dist.dispatch.scheduler import Load, Record, Scheduler
from wdct_dist.dispatch.sharing import merge_instead, sharers
from wdct_dist.dispatch.worker import UnitReport, WorkerSpec
from wdct_dist.engine.protocol import EngineFacts, Sharing, Swap
from wdct_dist.errors import BadInput, EngineError

POLL_S = 0.5
"""How often the driver looks up from waiting: for a signal, and for engines that do not start or do not go on."""

CLOSE_S = 10.0
"""How long engines may take to close before they are killed."""

PLACED_S = 5.0
"""How long the cluster may take to place an actor before the others do its work; its node may be gone, for a while or for good."""

CRASHES_WHILE_STARTING = 4
"""A process that dies while it loads may have been killed from outside; an error that it raised is tried only once more."""


@dataclass(slots=True)
class Hosted:
    """An actor in a place of the pool, and what it was asked."""

    actor: Any
    spec: WorkerSpec
    asked_at: float
    placed: Any
    """The call that is answered when the cluster has placed the actor."""
    starting: Any | None = None
    """The call that waits for the actor to be placed, then the one that loads the checkpoint; nothing else is asked until it is over."""
    is_placed: bool = False
    is_parked: bool = False
    """The cluster has no room for it at present; it has no checkpoint until there is."""
    is_live: bool = False
    """It has had a checkpoint: the next one is a swap."""
    running: dict[Any, Unit] = field(default_factory=dict)
    began_at: float = 0.0
    """When it began what it does now: when it was given a unit with nothing else to do, or finished the one before."""

    @property
    def checkpoint_id(self) -> str:
        return self.spec.checkpoint.checkpoint_id

    @property
    def is_idle(self) -> bool:
        """Whether it has a checkpoint and nothing to do."""
        return self.is_live and self.starting is None and not self.running


class RayDriver:
    """Executes a scheduler's units on a fixed pool of actors."""

    def __init__(
        self,
        scheduler: Scheduler,
        size: PoolSize,
        specs: dict[str, WorkerSpec],
        journal: Journal,
        interrupts: Interrupts,
        engines: dict[int, Hosted],
        ahead: list[Actor],
        head: HeadWatch,
    ) -> None:
        """`engines`: by place, those that live on from before; afterwards those that may live on. `ahead`: actors without a checkpoint."""
        self._scheduler = scheduler
        self._size = size
        self._specs = specs
        self._journal = journal
        self._interrupts = interrupts
        self._engines = engines
        self._ahead = ahead
        self._head = head
        self._calls: dict[Any, int] = {}
        """Calls without an answer, with the place that was asked."""
        self._answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._looked_at = self._went_on_at = time.monotonic()
        self._stopping = False
        self._has_started = bool(engines)
        """Whether an actor has ever run here."""

    def run(self) -> None:
        """Until everything that can be done is done. Raises what is a fault of ours or of the store.

        `HeadLost`: the cluster is gone; what its engines had in flight is given back to the scheduler.
        """
        kept = False
        self._interrupts.renew()
        try:
            while not self._scheduler.finished:
                self._head.check()
                if self._interrupts.requested is not None:
                    self._stop(self._interrupts.requested)
                    if self._interrupts.overdue:
                        break
                for place in self._scheduler.to_ask:
                    self._give(place)
                if not self._calls:
                    break
                self._collect()
                self._look_for_hangs()
            # one that was told to stop asks nothing more
            kept = self._interrupts.requested is None
        except HeadLost:
            for place in range(self._scheduler.num_places):
                self._scheduler.withdraw(place)
            self._engines.clear()
            self._ahead.clear()
            raise
        finally:
            while self._ahead:
                kill(self._ahead.pop().handle)
            end_engines(self._engines, but_idle=kept)

    def _stop(self, reason: str) -> None:
        """Gives no more units, and has engines that can end within theirs do so."""
        if self._stopping:
            return
        self._stopping = True
        self._journal.stopping(reason)
        self._scheduler.stop()
        for engine in self._engines.values():
            if engine.starting is None:
                engine.actor.stop.remote(reason)

    def _give(self, place: int) -> None:
        engine = self._engines.get(place)
        if engine is not None and engine.starting is not None:
            return
        while (action := self._scheduler.next(place)) is not None:
            if isinstance(action, Load):
                self._load(place, action.checkpoint_id)
                return
            engine = self._engines.get(place)
            if engine is None:
                # a prompt to record as an error, and no engine in this place: any worker can write, none need load a model
                engine = self._host(place, action.unit.checkpoint_id)
            if not engine.running:
                engine.began_at = time.monotonic()
            if isinstance(action, Record):
                call = engine.actor.record.remote(action.unit, action.error)
            else:
                call = engine.actor.run.remote(action.unit)
            self._journal.unit_given(place, action.unit)
            engine.running[call] = action.unit
            self._await(call, place)

    def _load(self, place: int, checkpoint_id: str) -> None:
        engine, spec = self._engines.get(place), self._specs[checkpoint_id]
        is_other = engine is not None and engine.spec.sharing != spec.sharing
        if engine is None or (engine.is_live and (is_other or spec.config.dispatch.reuse is Reuse.restart)):
            engine = self._host(place, checkpoint_id, ahead=True)
        if not engine.is_live:
            self._start(place, engine, checkpoint_id)
            return
        engine.spec, engine.asked_at = spec, time.monotonic()
        engine.starting = engine.actor.swap.remote(spec)
        self._await(engine.starting, place)
        self._journal.say("engine swapping", engine=place, checkpoint=checkpoint_id)

    def _start(self, place: int, engine: Hosted, checkpoint_id: str) -> None:
        engine.spec, engine.asked_at = self._specs[checkpoint_id], time.monotonic()
        if engine.is_placed:
            engine.starting = engine.actor.start.remote(engine.spec)
        else:
            engine.starting = engine.placed
        self._await(engine.starting, place)
        self._journal.say("engine starting", engine=place, checkpoint=checkpoint_id)

    def _host(self, place: int, checkpoint_id: str, *, ahead: bool = False) -> Hosted:
        """A new actor in the place, instead of the one that is there; with `ahead` one that was made before, which can only be started."""
        self._discard(place)
        spec = self._specs[checkpoint_id]
        actor = self._ahead.pop(0) if ahead and self._ahead else make_actor(self._size, spec.config, spec)
        engine = Hosted(actor.handle, spec, time.monotonic(), actor.placed)
        self._engines[place] = engine
        return engine

    def _await(self, call: Any, place: int) -> None:
        """Has the answer announce itself: `ray.wait` on the calls of 1,024 engines takes milliseconds each time (2.60, measured)."""
        self._calls[call] = place
        call.future().add_done_callback(lambda _: self._answered.put(call))

    def _collect(self) -> None:
        """Waits for an answer, and records it and those that came meanwhile."""
        with contextlib.suppress(queue.Empty):
            self._record(self._answered.get(timeout=POLL_S))
            while True:
                self._record(self._answered.get_nowait())

    def _record(self, call: Any) -> None:
        place = self._calls.pop(call, None)
        if place is None:
            return  # went with its engine
        engine = self._engines[place]
        if call is engine.starting:
            self._record_start(place, engine, call)
        else:
            self._record_unit(place, engine, call)

    def _record_start(self, place: int, engine: Hosted, call: Any) -> None:
        try:
            loaded: EngineFacts | Swap = ray.get(call)
        except Exception as error:
            if engine.is_parked:
                self._refuse_first(classify(error, starting=True))
                self._scheduler.unpark(place)
                self._lost(place, reason(error))
            else:
                self._load_failed(place, engine, error)
            return
        if not engine.is_placed:
            self._placed(place, engine)
            return
        engine.starting, engine.is_live = None, True
        seconds = time.monotonic() - engine.asked_at
        self._scheduler.started(engine.checkpoint_id, seconds, swapped=isinstance(loaded, Swap))
        if isinstance(loaded, Swap):
            self._journal.engine_swapped(place, engine.checkpoint_id, loaded, seconds)
        else:
            self._journal.engine_started(place, engine.checkpoint_id, loaded, seconds)
            if engine.spec.sharing is not None:
                self._load(place, engine.checkpoint_id)  # it has the base alone so far
                return
        if (upcoming := self._scheduler.upcoming(place)) is not None:
            engine.actor.prefetch.remote(self._specs[upcoming])

    def _placed(self, place: int, engine: Hosted) -> None:
        engine.is_placed = self._has_started = True
        if engine.is_parked:
            engine.starting, engine.is_parked = None, False
            self._journal.say("place has room", engine=place)
            self._scheduler.unpark(place)
        else:
            engine.starting = engine.actor.start.remote(engine.spec)
            self._await(engine.starting, place)

    def _load_failed(self, place: int, engine: Hosted, error: Exception) -> None:
        if engine.spec.sharing is not None and (engine.is_live or classify(error, starting=True) is Fault.checkpoint):
            self._share_failed(place, engine, engine.spec.sharing, error)
            return
        if engine.is_live:
            # whatever it was: only where a fresh engine fails too it is the checkpoint's fault
            self._journal.swap_failed(place, engine.checkpoint_id, error)
            self._start(place, self._host(place, engine.checkpoint_id), engine.checkpoint_id)
            return
        fault, why = classify(error, starting=True), reason(error)
        self._discard(place)
        self._refuse_first(fault)
        if fault is Fault.run_dir:
            self._run_dir_not_visible(place, error)
            return
        if fault not in (Fault.checkpoint, Fault.engine_lost):
            raise root_cause(error)
        allowed = CRASHES_WHILE_STARTING if fault is Fault.engine_lost else 1
        if isinstance(root_cause(error), BadInput):
            allowed = 0  # of the checkpoint itself: each further start would end in the same way
        is_final = self._scheduler.start_failed(place, engine.checkpoint_id, why, allowed=allowed)
        self._journal.start_failed(place, engine.checkpoint_id, why, is_final=is_final)

    def _run_dir_not_visible(self, place: int, error: Exception) -> None:
        """Retire the slot. Raise the error if no slot is left that sees the run directory."""
        self._scheduler.park(place)
        self._scheduler.give_up(place, reason(error))
        if len(self._scheduler.retired) == self._scheduler.num_places:
            raise root_cause(error)
        self._journal.say("place given up", engine=place, reason=reason(error))

    def _refuse_first(self, fault: Fault) -> None:
        """Raises what is wrong with the cluster, where that explains why the first actor died."""
        if fault is Fault.engine_lost and not self._has_started:
            refuse_needless_token()

    def _share_failed(self, place: int, engine: Hosted, sharing: Sharing, error: Exception) -> None:
        """The engine did not take an adapter, or did not start for any: merged they need none of it.

        What it had in flight for others is done again.
        """
        if engine.is_live:
            self._journal.swap_failed(place, engine.checkpoint_id, error)
        else:
            self._journal.say("start failed", engine=place, checkpoint=engine.checkpoint_id, reason=reason(error))
        names = [engine.checkpoint_id] if engine.is_live else sharers(sharing, self._specs)
        merge_instead(names, f"sharing an engine failed: {reason(error)}", self._specs, self._scheduler.costs, self._journal)
        if units := [unit.shard_name for unit in self._scheduler.in_flight(place)]:
            self._journal.say("engine lost", engine=place, reason="it is replaced", in_flight=units)
        self._scheduler.withdraw(place)
        self._discard(place)

    def _look_for_hangs(self) -> None:
        """Ends engines that do not start, and those that do not go on, in time."""
        now = time.monotonic()
        if now - self._looked_at < POLL_S:
            return
        self._looked_at = now
        for place, engine in list(self._engines.items()):
            config = engine.spec.config
            if engine.is_parked:
                continue
            if engine.starting is not None:
                limit = config.engine.start_timeout_s
                if not engine.is_placed and now - engine.asked_at > PLACED_S:
                    self._park(place, engine)
                elif now - engine.asked_at > limit:
                    self._load_failed(place, engine, EngineError(f"not ready after engine.start_timeout_s = {limit:g}"))
            elif engine.running:
                limit = config.dispatch.unit_timeout_s or self._scheduler.costs.patience_s(engine.running.values())
                if now - engine.began_at > limit:
                    self._lost(place, f"the engine was ended: no unit done in {round(limit, 1):g} s (dispatch.unit_timeout_s)")
        if not all(self._engines[place].is_parked for place in self._calls.values()):
            self._went_on_at = now
        self._give_up_parked(now - self._went_on_at)

    def _park(self, place: int, engine: Hosted) -> None:
        engine.is_parked = True
        why = f"no process for its engine after {PLACED_S:g} s: the cluster has no room, or a node is slow"
        self._journal.say("place waits", engine=place, reason=why)
        self._scheduler.park(place)

    def _give_up_parked(self, waited_s: float) -> None:
        """Where nothing else goes on, places are given up that have no room for as long as an engine may take to start."""
        for place, engine in list(self._engines.items()):
            limit = engine.spec.config.engine.start_timeout_s
            if engine.is_parked and waited_s > limit:
                why = f"the cluster had no room for an engine in engine.start_timeout_s = {limit:g}"
                self._discard(place)
                self._scheduler.give_up(place, why)
                self._journal.say("place given up", engine=place, reason=why)

    def _record_unit(self, place: int, engine: Hosted, call: Any) -> None:
        unit = engine.running.pop(call)
        try:
            report: UnitReport = ray.get(call)
        except Exception as error:
            if classify(error) is not Fault.engine_lost:
                raise root_cause(error) from None
            self._lost(place, reason(error))
            return
        now = time.monotonic()
        # not the worker's own seconds: in those the unit may have waited behind the other one in flight
        self._scheduler.done(place, unit, now - engine.began_at)
        engine.began_at = now
        self._journal.unit_done(place, report)
        if report.stopped is not None:
            self._interrupts.request(report.stopped)

    def _lost(self, place: int, why: str) -> None:
        units = [unit.shard_name for unit in self._scheduler.in_flight(place)]
        self._scheduler.lost(place, why)
        self._discard(place)
        self._journal.say("engine lost", engine=place, reason=why, in_flight=units)
        if place in self._scheduler.retired:
            self._journal.say("place given up", engine=place, reason=why)

    def _discard(self, place: int) -> None:
        engine = self._engines.pop(place, None)
        if engine is not None:
            for call in (engine.starting, *engine.running):
                self._calls.pop(call, None)
            kill(engine.actor)


def end_engines(engines: dict[int, Hosted], *, but_idle: bool = False) -> None:
    """Has engines close, and kills them; with `but_idle` those that only wait are left."""
    ending = [place for place, engine in engines.items() if not (but_idle and engine.is_idle)]
    closing = [engines[place].actor.close.remote() for place in ending if engines[place].starting is None]
    if closing:
        with contextlib.suppress(Exception):
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
    for place in ending:
        kill(engines.pop(place).actor)
