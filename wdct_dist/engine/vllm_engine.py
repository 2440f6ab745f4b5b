"""vLLM as an engine: its life from start to end, and the calls that it serves.

vLLM is built and stepped in one thread of its own (the worker threads of its CPU kernels belong to the thread that started them).
Calls of `answer` render and tokenise in their own threads and hand their prompts over; the engine's thread serves them in order of
arrival, so that several calls share its batches and it never drains between them.

    steps.py          what is asked about a prompt
    asked.py          a prompt's way through the engine
    vllm_start.py     vLLM's arguments, its warm-up and its end
    vllm_request.py   a request in vLLM's words
    vllm_swap.py      another checkpoint in the live engine
    vllm_adapters.py  several adapters beside its weights
    vllm_staged.py    its weights, on the way to a GPU
    vllm_facts.py     what runs
    vllm_failure.py   why it failed
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from wdct_dist.checkpoints.digest import tokenizer_digest
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS
from wdct_dist.config.schema import EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine import vllm_adapters
from wdct_dist.engine.asked import Answers, Asked, Request
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.protocol import EngineFacts, Response, Sharing, Swap
from wdct_dist.engine.render import Renderer
from wdct_dist.engine.steps import Asker
from wdct_dist.engine.swap import Build, difference, other_vocabulary, read_build
from wdct_dist.engine.vllm_facts import facts_of
from wdct_dist.engine.vllm_failure import cause, one_line, with_advice
from wdct_dist.engine.vllm_request import Params, refusals
from wdct_dist.engine.vllm_start import build_llm, end, load_tokenizer, warm_up
from wdct_dist.engine.vllm_swap import SwappedWeights, swap_weights
from wdct_dist.errors import ConfigError, EngineError, SwapRefused
from wdct_dist.ids import file_sha256
from wdct_dist.prompts.types import Prompt

SLICE = 256
"""Prompts that a call renders before it hands them over: the engine works on the first while the next are rendered."""

AHEAD = 256
"""Requests given to vLLM beyond those that it works on at once: it never waits for us, and what it holds stays bounded."""

LOOK_S = 1.0
"""How often those who wait look whether vLLM's processes are still there."""

RESERVED = frozenset(
    {
        "model",
        "tokenizer",
        "skip_tokenizer_init",
        "runner",
        "logprobs_mode",
        "worker_extension_cls",
        "enable_lora",
        "max_loras",
        "max_lora_rank",
    }
)
"""What `engine.extra` may not set: it would change what is evaluated, or what a logprob is, or take our place in vLLM's workers."""

Awaited = TypeVar("Awaited")

_PROCESS_HAS_ENGINE = threading.Lock()
"""vLLM keeps process groups and its forward context in globals: a process has one engine at a time."""


def start_vllm(
    checkpoint: Checkpoint,
    engine: EngineConfig,
    prompt: PromptConfig,
    sampling: SamplingConfig,
    tensor_parallel_size: int,
    sharing: Sharing | None = None,
) -> VllmEngine:
    """An engine that is ready to answer; with `sharing` the checkpoint is a base, and its adapters are taken afterwards.

    Raises `EngineError` with the cause in one line where vLLM does not start, `CheckpointError` where the chat template does not
    work, `ConfigError` for what `engine.extra` may not set.
    """
    return VllmEngine(checkpoint, engine, prompt, sampling, tensor_parallel_size, sharing)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What an engine has of its checkpoint, beside the weights."""

    directory: Path
    build: Build
    tokenizer: Any
    tokenizer_digest: str
    asker: Asker
    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class _Order:
    """A swap that the engine's thread is to make."""

    new: Path
    old: Path
    done: queue.SimpleQueue[SwappedWeights | EngineError]


@dataclass(slots=True)
class _Held:
    """An adapter that a shared engine has."""

    request: Any
    """vLLM's, which goes with every prompt for it."""
    asker: Asker
    weights_sha256: str
    num_open: int = 0
    """Calls that ask for it."""
    logprobs: vllm_adapters.Logprobs = ()


@dataclass(frozen=True, slots=True)
class _Addition:
    """An adapter that the engine's thread is to add, those that it is to remove, and what the probe said for others."""

    request: Any
    removed: list[int]
    others: dict[str, vllm_adapters.Logprobs]
    done: queue.SimpleQueue[vllm_adapters.Applied | EngineError]


class VllmEngine:
    """One checkpoint in vLLM, ready to answer; or a base with several adapters. Made by `start_vllm`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: EngineConfig,
        prompt: PromptConfig,
        sampling: SamplingConfig,
        tensor_parallel_size: int,
        sharing: Sharing | None = None,
    ) -> None:
        if taken := RESERVED & engine.extra.keys():
            raise ConfigError(f"engine.extra: {', '.join(sorted(taken))} cannot be set there; leave it out.")
        if not _PROCESS_HAS_ENGINE.acquire(blocking=False):
            raise EngineError("this process already has a vLLM engine and can have one at a time; close that one first.")
        self._params = Params(sampling)
        self._sampling = sampling
        self._prompt_config = prompt
        self._engine_config = engine
        self._sharing = sharing
        self._adapters: dict[str, _Held] = {}
        """By digest, those taken longest ago first."""
        self._numbers = itertools.count(1)
        self._base_logprobs: vllm_adapters.Logprobs = ()
        self._inbox: queue.SimpleQueue[list[Asked] | _Order | _Addition | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._open_calls: set[queue.SimpleQueue[Any]] = set()
        self._is_swapping = False
        self._failure: EngineError | None = None
        self._core: Any = None

        started: queue.SimpleQueue[Any] = queue.SimpleQueue()
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
        if isinstance(llm, EngineError):
            self._thread.join()
            raise EngineError(f"the engine for {checkpoint.checkpoint_id} did not start: {llm}") from llm
        try:
            self._core = llm.llm_engine.engine_core
            self._vllm_config = llm.llm_engine.vllm_config
            build = read_build(checkpoint.directory, allow_pickle=engine.allow_pickle)
            self._loaded = self._load(checkpoint.directory, build, llm.get_tokenizer(), tokenizer_digest(checkpoint.directory))
        except BaseException:
            self.close()
            raise

    def _load(self, directory: Path, build: Build, tokenizer: Any, digest: str) -> _Loaded:
        """Raises `CheckpointError` for a chat template that does not work."""
        model_config = self._vllm_config.model_config
        renderer = Renderer(tokenizer, self._prompt_config.format, self._prompt_config)
        speller = LabelSpeller(tokenizer, renderer.encode, model_config.get_vocab_size())
        asker = Asker(tokenizer, renderer, speller, self._sampling, model_config.max_model_len)
        facts = facts_of(self._vllm_config, renderer.format.value, self._engine_config.deterministic)
        return _Loaded(directory, build, tokenizer, digest, asker, facts)

    @property
    def facts(self) -> EngineFacts:
        return self._loaded.facts

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. Safe to call from several threads at once.

        A prompt that is too long, or that the template, the tokenizer or vLLM refuses, has `error`. A broken or closed engine raises
        `EngineError`, for this call and all later ones.
        """
        if self._sharing is not None:
            raise EngineError("adapters share this engine, which then does not answer for their base; use `answer_as`.")
        return self._answer(self._loaded.asker, None, prompts, trial)

    def answer_as(self, digest: str, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """As `answer`, for an adapter that was taken before; calls for several adapters share the engine's batches."""
        with self._gate:
            held = self._adapters.get(digest)
            if held is None:
                raise EngineError(f"the engine does not have the adapter {digest[:12]}.")
            held.num_open += 1
        try:
            return self._answer(held.asker, held.request, prompts, trial)
        finally:
            with self._gate:
                held.num_open -= 1

    def _answer(self, asker: Asker, adapter: Any | None, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        answers: Answers = queue.SimpleQueue()
        with self._gate:
            if self._failure is not None:
                raise EngineError(str(self._failure)) from self._failure
            if self._is_swapping:
                raise EngineError("the engine is changing its checkpoint; ask it when `swap` has returned.")
            self._open_calls.add(answers)
        try:
            responses: dict[int, Response] = {}
            num_asked = 0
            for start in range(0, len(prompts), SLICE):
                asked = []
                part = prompts[start : start + SLICE]
                for place, (prompt, planned) in enumerate(zip(part, asker.begin(part, trial), strict=True), start):
                    if isinstance(planned, Response):
                        responses[place] = planned
                    else:
                        asked.append(Asked(prompt, trial, planned, place, answers, adapter))
                self._inbox.put(asked)
                num_asked += len(asked)
            for _ in range(num_asked):
                answered = self._next(answers)
                if isinstance(answered, EngineError):
                    raise EngineError(str(answered)) from answered
                place, response = answered
                responses[place] = response
        finally:
            with self._gate:
                self._open_calls.discard(answers)
        return [responses[place] for place in range(len(prompts))]

    def swap(self, checkpoint: Checkpoint) -> Swap:
        """Takes another checkpoint in place of its own: weights, tokenizer, chat template; proven before it returns.

        Raises `SwapRefused` where the engine cannot take it or could not prove that it has (it then is as it was), `CheckpointError` for
        files that are not whole or a chat template that does not work (likewise). After any other error, an `EngineError`, the
        engine is broken.
        """
        if self._sharing is not None:
            raise SwapRefused("adapters share the engine")
        began = time.perf_counter()
        done: queue.SimpleQueue[SwappedWeights | EngineError] = queue.SimpleQueue()
        with self._gate:
            if self._failure is not None:
                raise EngineError(str(self._failure)) from self._failure
            if self._open_calls:
                raise SwapRefused("a call of `answer` or `swap` still waits for the engine.")
            self._is_swapping = True
            self._open_calls.add(done)
        try:
            loaded = self._prepare(checkpoint.directory)
            self._inbox.put(_Order(checkpoint.directory, self._loaded.directory, done))
            swapped = self._next(done)
            if isinstance(swapped, EngineError):
                raise type(swapped)(str(swapped)) from swapped
            self._loaded = replace(loaded, facts=replace(loaded.facts, num_swaps=self.facts.num_swaps + 1))
        finally:
            with self._gate:
                self._open_calls.discard(done)
                self._is_swapping = False
        return Swap(self.facts, time.perf_counter() - began - swapped.canary.seconds, swapped.canary)

    def take(self, checkpoint: Checkpoint) -> Swap:
        """Takes one more adapter, proven before it returns; what is asked for others goes on meanwhile. From one thread at a time.

        Raises `SwapRefused` where it cannot, `EngineError` where it does not load or is not proven; the other adapters are as they were.
        """
        began = time.perf_counter()
        assert self._sharing is not None, "an engine that was not started for adapters"
        asker = self._asker_of(checkpoint.directory)
        sha256 = file_sha256(checkpoint.directory / ADAPTER_WEIGHTS[0])
        done: queue.SimpleQueue[vllm_adapters.Applied | EngineError] = queue.SimpleQueue()
        with self._gate:
            if self._failure is not None:
                raise EngineError(str(self._failure)) from self._failure
            held = self._adapters.pop(checkpoint.digest, None)
            removed = []
            for digest in [digest for digest, one in self._adapters.items() if one.num_open == 0]:
                if held is None and len(self._adapters) >= self._sharing.num_slots:
                    removed.append(self._adapters.pop(digest).request.lora_int_id)
            if held is None and len(self._adapters) >= self._sharing.num_slots:
                raise SwapRefused(f"all {self._sharing.num_slots} places for adapters are in use")
            # files that are the same, under other settings, need not be told apart
            others = {digest[:12]: one.logprobs for digest, one in self._adapters.items() if one.weights_sha256 != sha256}
            self._open_calls.add(done)
        request = vllm_adapters.request_for(checkpoint.digest, next(self._numbers), checkpoint.directory) if held is None else held.request
        try:
            self._inbox.put(_Addition(request, removed, others | {"the base": self._base_logprobs}, done))
            applied = self._next(done)
        finally:
            with self._gate:
                self._open_calls.discard(done)
        if isinstance(applied, EngineError):
            raise EngineError(str(applied)) from applied
        with self._gate:
            self._adapters[checkpoint.digest] = held or _Held(request, asker, sha256)
            self._adapters[checkpoint.digest].logprobs = applied.logprobs
            self._loaded = replace(self._loaded, facts=replace(self.facts, num_swaps=self.facts.num_swaps + 1))
        return Swap(self.facts, time.perf_counter() - began - applied.canary.seconds, applied.canary)

    def _asker_of(self, directory: Path) -> Asker:
        """An adapter's own, where it brings another tokenizer or chat template than its base has."""
        digest = tokenizer_digest(directory)
        if digest == self._loaded.tokenizer_digest:
            return self._loaded.asker
        tokenizer = load_tokenizer(self._vllm_config.model_config, directory)
        if why := other_vocabulary(self._loaded.tokenizer, tokenizer):
            raise SwapRefused(why)
        return self._load(directory, self._loaded.build, tokenizer, digest).asker

    def _prepare(self, directory: Path) -> _Loaded:
        """All of a swap that leaves the engine as it is."""
        if self._vllm_config.model_config.quantization is not None:
            raise SwapRefused("the engine quantises weights, and a swap of such weights cannot be proven")
        build = read_build(directory, allow_pickle=self._engine_config.allow_pickle)
        if why := difference(self._loaded.build, build):
            raise SwapRefused(why)
        digest = tokenizer_digest(directory)
        if digest == self._loaded.tokenizer_digest:
            return replace(self._loaded, directory=directory)
        tokenizer = load_tokenizer(self._vllm_config.model_config, directory)
        if why := other_vocabulary(self._loaded.tokenizer, tokenizer):
            raise SwapRefused(why)
        return self._load(directory, build, tokenizer, digest)

    def close(self) -> None:
        """Ends vLLM, its processes and its thread. Calls of `answer` that still wait raise `EngineError`."""
        self._inbox.put(None)
        while self._thread.is_alive():
            self._thread.join(LOOK_S)
            self._wake_from_death()
        self._core = None

    def _next(self, answers: queue.SimpleQueue[Awaited]) -> Awaited:
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

    # In the engine's thread.

    def _run(self, checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, started: queue.SimpleQueue[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="wdct-vllm-") as folder:
            error_log = Path(folder) / "errors.log"
            llm: Any = None
            try:
                llm = build_llm(checkpoint, engine, tensor_parallel_size, error_log, self._sharing)
                warm_up(llm)
                if self._sharing is not None:
                    self._base_logprobs = vllm_adapters.probe(llm, None, llm.llm_engine.step)
            except BaseException as error:
                broken = EngineError(with_advice(cause(error, error_log)))
                broken.__cause__ = error
                end(None)
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
            with self._gate:
                self._failure = failure
                for answers in self._open_calls:
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
                if isinstance(asked, _Order):
                    # what is still here belongs to calls that were given up: no call is open
                    waiting.clear()
                    ready.clear()
                    running.clear()
                    self._swap(llm, asked)
                    continue
                if isinstance(asked, _Addition):
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
    def _swap(llm: Any, order: _Order) -> None:
        while llm.llm_engine.has_unfinished_requests():
            llm.llm_engine.step()
        try:
            swapped = swap_weights(llm, order.new, order.old)
        except SwapRefused as refused:
            order.done.put(refused)
        else:
            order.done.put(swapped)

    @staticmethod
    def _add(llm: Any, addition: _Addition, step: vllm_adapters.Step) -> None:
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
