"""The worker: what an engine's process runs. It reads prompts, asks the engine, writes the shard, and reports counts.

Rows never pass through the driver. Plain Python: Ray hosts it in an actor (`ray_driver`), `local` calls it directly.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from wdct_dist.checkpoints.node_cache import Lease
from wdct_dist.checkpoints.node_copy import apart_on_this_node, on_this_node, require_unchanged
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.prefetch import Prefetch
from wdct_dist.engine.build import build_engine, prepare_engine
from wdct_dist.engine.endpoint_limits import spent_before
from wdct_dist.engine.protocol import Engine, EngineFacts, Response, Shares, Sharing, Stoppable, Stopped, Swap
from wdct_dist.engine.swap import can_swap
from wdct_dist.errors import CheckpointError, SwapRefused
from wdct_dist.tables.prompts_file import PromptReader
from wdct_dist.tables.rows import answers_table
from wdct_dist.tables.shards import Shard, encode
from wdct_dist.tables.shared_directory import require_nonce
from wdct_dist.tables.storage import Store
from wdct_dist.tables.usage import tokens_used


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know."""

    run_uri: str
    """`Store.location` of the run directory: an absolute path or a URI."""
    checkpoint: Checkpoint
    config: Config
    facts: Mapping[str, object]
    """Versions, seeds and digests that travel with every shard."""
    sharing: Sharing | None = None
    """Of an adapter that is not merged: the engine that it shares with others of its base."""
    nonce: str | None = None
    """A file that the driver keeps in the run directory (see `tables/shared_directory.py`); None: there is nothing to prove."""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What became of a unit: counts, never rows."""

    unit: Unit
    shards: tuple[Shard, ...]
    """One, with all its rows; where the engine stopped within the unit, one for each stretch of prompts that it has answered."""
    seconds: float
    num_errors: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    stopped: str | None = None
    """Why the engine asks nothing more, or None."""


class Worker:
    """Hosts one engine, with one checkpoint at a time. `run` may be called from several threads at once."""

    def __init__(self, spec: WorkerSpec | None) -> None:
        """Without `spec` it can only be started."""
        if spec is not None:
            self._take(spec)
        self._engine: Engine | None = None
        self._lease: Lease | None = None
        self._base: Lease | None = None
        """What adapters share."""
        self._prefetch = Prefetch()

    @property
    def sharing(self) -> Sharing | None:
        """How the engine takes adapters."""
        return self._spec.sharing

    def prepare(self, config: Config) -> None:
        """Imports what an engine needs before it has a checkpoint. Where that fails, `start` says it."""
        with contextlib.suppress(Exception):
            prepare_engine(config)

    def start(self, spec: WorkerSpec | None = None) -> EngineFacts:
        """Starts the engine, with another checkpoint than at first where `spec` says so; for adapters that share one, with their base:
        `swap` has it take them.

        Raises `EngineError` or `CheckpointError` if the engine does not start, `RunDirError` if this node does not see the run directory.
        """
        if spec is not None:
            self._take(spec)
        require_nonce(self._store, self._spec.nonce)
        checkpoint = self._at_hand(self._spec) if self._spec.sharing is None else self._base_at_hand(self._spec)
        self._engine = build_engine(checkpoint, self._spec.config, self._spent(), self._spec.sharing)
        try:
            require_unchanged(checkpoint)  # it may have been written to while it was loaded
        except CheckpointError:
            self._engine.close()
            self._engine = None
            raise
        return self._engine.facts

    def swap(self, spec: WorkerSpec) -> Swap:
        """Has the live engine take another checkpoint; no unit may be under way, but for adapters that share it. Whatever it raises, only
        a fresh engine goes on."""
        assert self._engine is not None, "swap before start"
        if spec.nonce != self._spec.nonce:
            require_nonce(Store(spec.run_uri), spec.nonce)  # the engine lives on for another run
        if spec.sharing != self._spec.sharing:
            raise SwapRefused("the engine takes adapters otherwise")
        if spec.sharing is not None:
            assert isinstance(self._engine, Shares), "an engine that was started for sharing"
            taken = self._engine.take(self._apart_at_hand(spec))
            self._take(spec)
            return taken
        verdict = can_swap(self._spec.checkpoint, spec.checkpoint)
        if not verdict.possible:
            raise SwapRefused(verdict.reason)
        checkpoint = self._at_hand(spec)
        swap = self._engine.swap(checkpoint)
        require_unchanged(checkpoint)
        self._take(spec)
        return swap

    def prefetch(self, spec: WorkerSpec) -> None:
        """Has the files of the checkpoint that comes next brought to this node; returns at once."""
        checkpoint = spec.checkpoint
        if spec.sharing is not None:
            if spec.sharing == self._spec.sharing:
                return  # the engine has the base, and adapters are small
            assert checkpoint.base is not None
            checkpoint = checkpoint.base
        if spec.config.engine.kind is EngineKind.vllm:
            self._prefetch.start(checkpoint, max_gib=spec.config.cache.max_gib, allow_pickle=spec.config.engine.allow_pickle)

    def run(self, unit: Unit) -> UnitReport:
        """Answers the unit's prompts and writes its shard."""
        assert self._engine is not None, "run before start"
        began = time.perf_counter()
        prompts = self._prompts().read(unit.start, unit.stop)
        try:
            if self._spec.sharing is not None:
                assert isinstance(self._engine, Shares), "an engine that was started for sharing"
                responses = self._engine.answer_as(unit.digest, prompts, unit.trial)
            else:
                responses = self._engine.answer(prompts, unit.trial)
        except Stopped as stopped:
            return self._write(unit, stopped.responses, began, str(stopped))
        return self._write(unit, responses, began)

    def stop(self, reason: str) -> None:
        """Has an engine that can end within a unit do so; others finish theirs."""
        if isinstance(self._engine, Stoppable):
            self._engine.stop(reason)

    def record(self, unit: Unit, error: str) -> UnitReport:
        """Writes the unit's shard with `error` in every row: prompts that no engine survives."""
        began = time.perf_counter()
        if self._engine is None:
            require_nonce(self._store, self._spec.nonce)
        prompts = self._prompts().read(unit.start, unit.stop)
        return self._write(unit, [Response(prompt.prompt_id, unit.trial, error=error) for prompt in prompts], began)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._prefetch.close()
        for lease in (self._lease, self._base):
            if lease is not None:
                lease.close()

    def _take(self, spec: WorkerSpec) -> None:
        self._spec = spec
        # an engine that lives on may be asked for another run
        self._store = Store(spec.run_uri, spec.config.dispatch.store_retry_s)

    def _at_hand(self, spec: WorkerSpec) -> Checkpoint:
        """The spec's checkpoint with its files on this node, where they stay while the engine has it."""
        if self._lease is not None:
            self._lease.close()  # before, not after: the disk may have room for one only
        self._lease = on_this_node(spec.checkpoint, max_gib=spec.config.cache.max_gib, allow_pickle=spec.config.engine.allow_pickle)
        return replace(spec.checkpoint, directory=self._lease.directory)

    def _base_at_hand(self, spec: WorkerSpec) -> Checkpoint:
        base = spec.checkpoint.base
        assert base is not None, "an adapter"
        self._base = on_this_node(base, max_gib=spec.config.cache.max_gib, allow_pickle=spec.config.engine.allow_pickle)
        return replace(base, directory=self._base.directory)

    def _apart_at_hand(self, spec: WorkerSpec) -> Checkpoint:
        """The spec's adapter, not merged, with its files on this node; the engine reads them while it takes it."""
        assert self._base is not None, "swap before start"
        if self._lease is not None:
            self._lease.close()
        config = spec.config
        self._lease = apart_on_this_node(
            spec.checkpoint, self._base.directory, max_gib=config.cache.max_gib, allow_pickle=config.engine.allow_pickle
        )
        return replace(spec.checkpoint, directory=self._lease.directory)

    def _prompts(self) -> PromptReader:
        # a reader a call: its decoded batch is not shared between threads, and opening a mapped file costs microseconds
        return PromptReader(self._store)

    def _spent(self) -> dict[str, float]:
        """What the run has used of an API's budget so far, in all its sessions and with all its models."""
        config = self._spec.config
        endpoint = config.engine.endpoint
        if config.engine.kind is not EngineKind.endpoint or (endpoint.budget_tokens is None and endpoint.budget_money is None):
            return {}
        return spent_before(endpoint, tokens_used(Store(config.run_dir, config.dispatch.store_retry_s)))

    def _write(self, unit: Unit, responses: Sequence[Response | None], began: float, stopped: str | None = None) -> UnitReport:
        """Writes what there is of a unit: its shard, or a shard for each stretch of prompts that have a response."""
        shards, place = [], unit.start
        for is_there, group in itertools.groupby(responses, key=lambda response: response is not None):
            stretch = list(group)
            if is_there:
                shards.append(self._write_shard(replace(unit, start=place, stop=place + len(stretch)), stretch))
            place += len(stretch)
        there = [response for response in responses if response is not None]
        return UnitReport(
            unit,
            tuple(shards),
            time.perf_counter() - began,
            sum(response.error is not None for response in there),
            sum(response.num_prompt_tokens or 0 for response in there),
            sum(response.num_cached_tokens or 0 for response in there),
            sum(response.num_output_tokens or 0 for response in there),
            stopped,
        )

    def _write_shard(self, unit: Unit, responses: Sequence[Response | None]) -> Shard:
        table = answers_table(unit.checkpoint_id, unit.digest, [response for response in responses if response is not None])
        engine = asdict(self._engine.facts) if self._engine is not None else {}
        is_adapter = self._spec.checkpoint.base is not None
        adapters = {"adapters": "merged" if self._spec.sharing is None else "shared"} if is_adapter else {}
        data, sha256 = encode(table, {**self._spec.facts, "engine": engine, **adapters, "unit": asdict(unit)})
        self._store.write(unit.shard_name, data)
        return Shard(unit.shard_name, table.num_rows, sha256)
