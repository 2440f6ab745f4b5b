"""vLLM's thread: what builds vLLM, feeds it, steps it and ends it.

vLLM stays in the one thread that started it (the worker threads of its CPU kernels belong to that thread). What it is to do comes through
an inbox, in order of arrival: prompts of calls, another checkpoint, another adapter. The thread knows who waits for an answer, and tells
them where it breaks.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wdct_dist import host_memory
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import EngineConfig, SamplingConfig
from wdct_dist.engine import vllm_adapters
from wdct_dist.engine.asked import Asked, Request
from wdct_dist.engine.protocol import Sharing, StartProof
from wdct_dist.engine.vllm_failure import cause, one_line, with_advice
from wdct_dist.engine.vllm_request import Params, refusals
from wdct_dist.engine.vllm_start import build_llm, end, warm_up
from wdct_dist.engine.vllm_swap import SwappedWeights, prove_start, swap_weights
from wdct_dist.errors import CheckpointError, EngineError, SwapRefused

AHEAD = 256
"""Requests given to vLLM beyond those that it works on at once: it never waits for us, and what it holds stays bounded."""

LOOK_S = 1.0
"""How often those who wait look whether vLLM's processes are still there."""

Awaited = TypeVar("Awaited")

_PROCESS_HAS_ENGINE = threading.Lock()
"""vLLM keeps process groups and its forward context in globals: a process has one engine at a time."""


@dataclass(frozen=True, slots=True)
class Order:
    """A swap that the engine's thread is to make."""

    new: Path
    old: Path
    done: queue.SimpleQueue[SwappedWeights | EngineError]


@dataclass(frozen=True, slots=True)
class Addition:
    """An adapter that the engine's thread is to add, those that it is to remove, and what the probe said for others."""

    request: Any
    removed: list[int]
    others: dict[str, vllm_adapters.Logprobs]
    done: queue.SimpleQueue[vllm_adapters.Applied | EngineError]


class VllmThread:
    """A vLLM that is ready, in its thread. Made by whoever asks it; one a process."""

    def __init__(
        self, checkpoint: Checkpoint, engine: EngineConfig, sampling: SamplingConfig, tensor_parallel_size: int, sharing: Sharing | None
    ) -> None:
        """Raises `EngineError` if vLLM does not start, or not in time, or if the process has one; `CheckpointError` if vLLM does not
        compute with the weights of the checkpoint's files."""
        if not _PROCESS_HAS_ENGINE.acquire(blocking=False):
            raise EngineError("this process already has a vLLM engine and can have one at a time; close that one first.")
        self.gate = threading.Lock()
        """Guards `calls`, and what its holder decides about them."""
        self.calls: set[queue.SimpleQueue[Any]] = set()
        """What those who wait wait on."""
        self.base_logprobs: vllm_adapters.Logprobs = ()
        """Of the probe without an adapter, where adapters share the engine."""
        self.start_proof: StartProof | None = None
        self._sharing = sharing
        self._params = Params(sampling)
        self._inbox: queue.SimpleQueue[list[Asked] | Order | Addition | None] = queue.SimpleQueue()
        self._failure: EngineError | None = None
        self._core: Any = None

        started: queue.SimpleQueue[Any] = queue.SimpleQueue()
        host_memory.share_heap()
        # a daemon: a process that ends without close() must not hang on its engine
        self._thread = threading.Thread(
            target=self._run, args=(checkpoint, engine, tensor_parallel_size, started), name="vllm-engine", daemon=True
        )
        self._thread.start()
        try:
            llm = started.get(timeout=engine.start_timeout_s)
        except queue.Empty:
            self._inbox.put(None)  # should it start after all, it ends at once
            raise EngineError(
                f"the engine for {checkpoint.checkpoint_id} was not ready after {engine.start_timeout_s:g} s; "
                "allow more with engine.start_timeout_s, or see what it does with VLLM_LOGGING_LEVEL=INFO."
            ) from None
        if isinstance(llm, CheckpointError):
            self._thread.join()
            raise llm
        if isinstance(llm, EngineError):
            self._thread.join()
            raise EngineError(f"the engine for {checkpoint.checkpoint_id} did not start: {llm}") from llm
        try:
            # not `llm` itself: what it holds of a device would outlive its end
            self._core = llm.llm_engine.engine_core
            self.config = llm.llm_engine.vllm_config
            self.tokenizer = llm.get_tokenizer()
        except BaseException:
            self.close()
            raise

    def require_whole(self) -> None:
        """Raises `EngineError` where vLLM broke or was closed. With the gate held."""
        if self._failure is not None:
            raise EngineError(str(self._failure)) from self._failure

    def put(self, work: list[Asked] | Order | Addition) -> None:
        """Hands work over; what becomes of it comes by the queue that it carries."""
        self._inbox.put(work)

    def wait_for(self, answers: queue.SimpleQueue[Awaited]) -> Awaited:
        """What comes next on `answers`, which is among `calls`."""
        while True:
            try:
                return answers.get(timeout=LOOK_S)
            except queue.Empty:
                self._wake_from_death()

    def _wake_from_death(self) -> None:
        """Ends a `step` that waits for a process that is no more.

        vLLM notices when its engine process is killed, but leaves a synchronous client waiting for its next output for ever (seen
        with 0.32, by SIGKILL, as the system does when memory runs out).
        """
        if getattr(getattr(self._core, "resources", None), "engine_dead", False):
            self._core.outputs_queue.put_nowait(RuntimeError("vLLM's engine process died unexpectedly"))

    def close(self) -> None:
        """Ends vLLM, its processes and the thread; those who still wait are told so."""
        self._inbox.put(None)
        while self._thread.is_alive():
            self._thread.join(LOOK_S)
            self._wake_from_death()
        self._core = None

    # In the engine's thread.

    def _run(self, checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, started: queue.SimpleQueue[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="wdct-vllm-") as folder:
            error_log = Path(folder) / "errors.log"
            llm: Any = None
            try:
                llm = build_llm(checkpoint, engine, tensor_parallel_size, error_log, self._sharing)
                warm_up(llm)
                if self._sharing is None:
                    self.start_proof = prove_start(llm, checkpoint.directory)
                else:
                    self.base_logprobs = vllm_adapters.probe(llm, None, llm.llm_engine.step)
            except BaseException as error:
                broken = error if isinstance(error, CheckpointError) else EngineError(with_advice(cause(error, error_log)))
                if broken is not error:
                    broken.__cause__ = error
                end(llm)
                _PROCESS_HAS_ENGINE.release()
                started.put(broken)
                return
            failure = EngineError("the engine is closed.")
            try:
                started.put(llm)
                self._serve(llm)
            except BaseException as error:
                failure = EngineError(f"the engine broke: {with_advice(cause(error, error_log))}")
                failure.__cause__ = error
            with self.gate:
                self._failure = failure
                for answers in self.calls:
                    answers.put(failure)
            end(llm)
            _PROCESS_HAS_ENGINE.release()

    def _serve(self, llm: Any) -> None:
        """The engine's life: takes prompts, feeds vLLM, hands over its outputs; until it is closed. What vLLM raises ends it."""
        vllm = llm.llm_engine
        scheduler = vllm.vllm_config.scheduler_config
        most_running = scheduler.max_num_seqs + AHEAD
        has_priorities = scheduler.policy == "priority"
        waiting: deque[Asked] = deque()
        ready: deque[Request] = deque()
        running: dict[str, Request] = {}
        names = map(str, itertools.count())
        refused = refusals()

        def step() -> list[Any]:
            """Hands over what is finished; returns outputs that are of no prompt."""
            others = []
            for output in vllm.step():
                if output.finished:
                    request = running.pop(output.request_id, None)
                    if request is None:
                        others.append(output)
                    else:
                        ready.extend(request.asked.take(request.number, output))
            return others

        while True:
            while not self._inbox.empty() or not (waiting or ready or running):
                asked = self._inbox.get()
                if asked is None:
                    return
                if isinstance(asked, Order):
                    # what is still here belongs to calls that were given up: no call is open
                    waiting.clear()
                    ready.clear()
                    running.clear()
                    self._swap(llm, asked)
                    continue
                if isinstance(asked, Addition):
                    self._add(llm, asked, step)
                    continue
                waiting.extend(asked)
            while len(running) < most_running and (ready or waiting):
                if not ready:
                    ready.extend(waiting.popleft().begin())
                    continue
                request = ready.popleft()
                if request.asked.over:
                    continue
                name = next(names)
                prompt = {"type": "token", "prompt_token_ids": list(request.generation.token_ids)}
                # what has begun comes first, while its tokens are in the prefix cache
                priority = {} if request.begins or not has_priorities else {"priority": -1}
                try:
                    vllm.add_request(name, prompt, self._params.of(request.generation), lora_request=request.asked.adapter, **priority)
                except refused as error:  # of this request alone; the engine is as whole as before
                    request.asked.refuse(error)
                else:
                    running[name] = request
            if running:
                step()

    @staticmethod
    def _swap(llm: Any, order: Order) -> None:
        while llm.llm_engine.has_unfinished_requests():
            llm.llm_engine.step()
        try:
            swapped = swap_weights(llm, order.new, order.old)
        except SwapRefused as refused:
            order.done.put(refused)
        else:
            order.done.put(swapped)

    @staticmethod
    def _add(llm: Any, addition: Addition, step: vllm_adapters.Step) -> None:
        try:
            applied = vllm_adapters.add(llm, addition.request, addition.removed, addition.others, step)
        except Exception as error:  # what vLLM refuses to load has many names; the adapters that it has are as they were
            with contextlib.suppress(Exception):
                llm.llm_engine.remove_lora(addition.request.lora_int_id)
            if isinstance(error, EngineError):
                addition.done.put(error)
            else:
                addition.done.put(EngineError(f"the adapter was not loaded: {type(error).__name__}: {one_line(error)}"))
        else:
            addition.done.put(applied)
