"""The journal of a run under way: the manifest, the events and the progress display, fed by whoever executes.

The manifest is rewritten at most every few seconds: it can be rebuilt from the shards, so a crash loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from wdct_dist.dispatch.faults import reason, root_cause
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.progress import Progress
from wdct_dist.dispatch.worker import UnitReport
from wdct_dist.engine.protocol import EngineFacts, Swap
from wdct_dist.errors import SwapRefused
from wdct_dist.tables.events import CLOSED, EventLog
from wdct_dist.tables.manifest import write_manifest
from wdct_dist.tables.shards import Shard, ShardKey
from wdct_dist.tables.storage import Store

MANIFEST_EVERY_S = 5.0


class Journal:
    """Collects what the driver hears. Memory: one small record a shard, nothing a row."""

    def __init__(self, store: Store, completed: Mapping[str, Shard], progress: Progress) -> None:
        self.events = EventLog(store)
        self.watch: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told every event as it happens, with its facts."""
        self.num_errors = 0
        self.num_prompts = 0
        self._stopping = False
        self._store = store
        self._shards = dict(completed)
        self._progress = progress
        self._written_at = time.monotonic()

    @property
    def shards(self) -> Mapping[str, Shard]:
        """The completed shards by name: those found at the start and those written since."""
        return self._shards

    @property
    def keys(self) -> list[ShardKey]:
        return [shard.key for shard in self._shards.values()]

    def drop(self, name: str) -> None:
        """Deletes a shard whose rows stand in another one too."""
        del self._shards[name]
        self._store.delete(name)

    def unit_given(self, engine: int, unit: Unit) -> None:
        self._add(
            "unit given", engine=engine, checkpoint=unit.checkpoint_id, variant=unit.variant, shard=unit.shard_name, rows=unit.num_prompts
        )

    def unit_done(self, engine: int, report: UnitReport) -> None:
        rows = sum(shard.rows for shard in report.shards)
        self._shards |= {shard.name: shard for shard in report.shards}
        self.num_errors += report.num_errors
        self.num_prompts += rows
        for shard in report.shards if report.stopped is not None else ():
            self._add("part of a unit done", engine=engine, shard=shard.name, rows=shard.rows, sha256=shard.sha256)
        if report.stopped is None:
            [shard] = report.shards
            self._add(
                "unit done",
                engine=engine,
                checkpoint=report.unit.checkpoint_id,
                variant=report.unit.variant,
                shard=shard.name,
                rows=shard.rows,
                sha256=shard.sha256,
                seconds=round(report.seconds, 4),
                errors=report.num_errors,
                prompt_tokens=report.num_prompt_tokens,
                cached_tokens=report.num_cached_tokens,
                output_tokens=report.num_output_tokens,
            )
        self._progress.advance(rows, report.num_prompt_tokens + report.num_output_tokens)
        if time.monotonic() - self._written_at > MANIFEST_EVERY_S:
            self.write_manifest()

    def engine_started(self, engine: int, checkpoint_id: str, facts: EngineFacts, seconds: float) -> None:
        self._progress.begin()
        said: dict[str, object] = {"hardware": facts.hardware, "dtype": facts.dtype, "vllm": facts.versions.get("vllm")}
        if (proof := facts.start_proof) is not None:
            said |= {"proof_tensors": proof.num_tensors, "proof_not_proven": proof.num_not_proven, "proof_s": round(proof.seconds, 3)}
        self._add("engine started", engine=engine, checkpoint=checkpoint_id, seconds=round(seconds, 3), **said)
        for note in facts.notes:
            self._add("engine note", engine=engine, checkpoint=checkpoint_id, note=note)

    def engine_swapped(self, engine: int, checkpoint_id: str, swap: Swap, seconds: float) -> None:
        """A live engine has another checkpoint, or one more adapter. `seconds`: all of it, as the driver saw it."""
        proof = {} if swap.canary is None else {"canary": "passed"} | {f"canary_{key}": value for key, value in asdict(swap.canary).items()}
        self._add(
            "engine swapped",
            engine=engine,
            checkpoint=checkpoint_id,
            seconds=round(seconds, 3),
            load_s=round(swap.load_s, 3),
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in proof.items()},
        )

    def swap_failed(self, engine: int, checkpoint_id: str, error: BaseException) -> None:
        """A live engine did not take another checkpoint: it refused, and was as it was, or it broke. A fresh one is tried."""
        event = "swap refused" if isinstance(root_cause(error), SwapRefused) else "swap failed"
        self.say(event, engine=engine, checkpoint=checkpoint_id, reason=reason(error))

    def start_failed(self, engine: int, checkpoint_id: str, why: str, *, is_final: bool) -> None:
        """Record that an engine did not start for the checkpoint. `is_final`: it will not be tried again.

        The reason of a final failure is printed once, in the last sentence of the run.
        """
        facts = {"engine": engine, "checkpoint": checkpoint_id, "reason": why}
        if not is_final:
            self.say("start failed", **facts)
            return
        self._add("start failed", **facts)
        self._add("checkpoint failed", checkpoint=checkpoint_id, reason=why)
        self._progress.say(f"checkpoint {checkpoint_id} failed; the reason stands at the end")

    def say(self, event: str, **facts: Any) -> None:
        """An event, and a line for whoever watches where it is one that they should know of."""
        self._add(event, **facts)
        if event in LOUD:
            detail = ", ".join(f"{key} {value}" for key, value in facts.items())
            self._progress.say(f"{event}: {detail}")

    def stopping(self, reason: str) -> None:
        """A signal, or an engine that asks nothing more, wants the end; said once, however often it is told."""
        if not self._stopping:
            self._stopping = True
            self.say("stopping", on=reason, after="the units in flight; a second signal ends at once")

    def _add(self, event: str, **facts: Any) -> None:
        self.events.add(event, **facts)
        if self.watch is not None:
            self.watch(event, facts)

    def write_manifest(self) -> None:
        write_manifest(self._store, self._shards.values())
        self._written_at = time.monotonic()

    def close(self) -> None:
        self.write_manifest()
        self._add(CLOSED)
        self.events.flush()


LOUD = {
    *("shard damaged", "engine lost", "swap failed", "start failed", "checkpoint failed"),
    "adapters merged",
    *("place waits", "place given up", "head lost", "head back", "stopping"),
}
"""Events that are also said on the progress display."""
