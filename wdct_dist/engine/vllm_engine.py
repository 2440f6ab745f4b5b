"""vLLM as an engine: its life from start to end, and the calls that it serves.

Calls of `answer` render and tokenise in their own threads and hand their prompts to vLLM's, which serves them in order of arrival, so that
several calls share its batches and it never drains between them.

    vllm_thread.py    the thread that vLLM lives in: feeds it, hands over what it says
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

import itertools
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.digest import tokenizer_digest
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS
from wdct_dist.config.schema import EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine import vllm_adapters
from wdct_dist.engine.asked import Answers, Asked
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.protocol import EngineFacts, Response, Sharing, Swap
from wdct_dist.engine.render import Renderer
from wdct_dist.engine.steps import Asker
from wdct_dist.engine.swap import Build, difference, other_vocabulary, read_build
from wdct_dist.engine.vllm_facts import facts_of
from wdct_dist.engine.vllm_start import load_tokenizer
from wdct_dist.engine.vllm_swap import SwappedWeights
from wdct_dist.engine.vllm_thread import Addition, Order, VllmThread
from wdct_dist.errors import ConfigError, EngineError, SwapRefused
from wdct_dist.ids import file_sha256
from wdct_dist.prompts.types import Prompt

SLICE = 64
"""Prompts that a call renders before it hands them over: the engine works on the first while the next are rendered."""

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


def start_vllm(
    checkpoint: Checkpoint,
    engine: EngineConfig,
    prompt: PromptConfig,
    sampling: SamplingConfig,
    tensor_parallel_size: int,
    sharing: Sharing | None = None,
) -> VllmEngine:
    """An engine that is ready to answer; with `sharing` the checkpoint is a base, and its adapters are taken afterwards.

    Raises `EngineError` with the cause in one line if vLLM does not start, `CheckpointError` if the chat template does not work or vLLM
    does not compute with the weights of the files, `ConfigError` for what `engine.extra` may not set.
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
        self._sampling = sampling
        self._prompt_config = prompt
        self._engine_config = engine
        self._sharing = sharing
        self._adapters: dict[str, _Held] = {}
        """By digest, those taken longest ago first."""
        self._numbers = itertools.count(1)
        self._is_swapping = False
        self._rendering = threading.Lock()
        """Calls render one after another: the engine has its first prompts sooner, and answers those of a call together."""
        self._vllm = VllmThread(checkpoint, engine, sampling, tensor_parallel_size, sharing)
        try:
            build = read_build(checkpoint.directory, allow_pickle=engine.allow_pickle)
            self._loaded = self._load(checkpoint.directory, build, self._vllm.tokenizer, tokenizer_digest(checkpoint.directory))
        except BaseException:
            self.close()
            raise

    def _load(self, directory: Path, build: Build, tokenizer: Any, digest: str) -> _Loaded:
        """Raises `CheckpointError` for a chat template that does not work."""
        model_config = self._vllm.config.model_config
        renderer = Renderer(tokenizer, self._prompt_config.format, self._prompt_config)
        speller = LabelSpeller(tokenizer, renderer.encode, model_config.get_vocab_size())
        asker = Asker(tokenizer, renderer, speller, self._sampling, model_config.max_model_len)
        facts = facts_of(self._vllm.config, renderer.format.value, self._engine_config.deterministic, self._vllm.start_proof)
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
        with self._vllm.gate:
            held = self._adapters.get(digest)
            if held is None:
                raise EngineError(f"the engine does not have the adapter {digest[:12]}.")
            held.num_open += 1
        try:
            return self._answer(held.asker, held.request, prompts, trial)
        finally:
            with self._vllm.gate:
                held.num_open -= 1

    def _answer(self, asker: Asker, adapter: Any | None, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        answers: Answers = queue.SimpleQueue()
        with self._vllm.gate:
            self._vllm.require_whole()
            if self._is_swapping:
                raise EngineError("the engine is changing its checkpoint; ask it when `swap` has returned.")
            self._vllm.calls.add(answers)
        try:
            responses: dict[int, Response] = {}
            num_asked = 0
            with self._rendering:
                for start in range(0, len(prompts), SLICE):
                    asked = []
                    part = prompts[start : start + SLICE]
                    for place, (prompt, planned) in enumerate(zip(part, asker.begin(part, trial), strict=True), start):
                        if isinstance(planned, Response):
                            responses[place] = planned
                        else:
                            asked.append(Asked(prompt, trial, planned, place, answers, adapter))
                    self._vllm.put(asked)
                    num_asked += len(asked)
            for _ in range(num_asked):
                answered = self._vllm.wait_for(answers)
                if isinstance(answered, EngineError):
                    raise EngineError(str(answered)) from answered
                place, response = answered
                responses[place] = response
        finally:
            with self._vllm.gate:
                self._vllm.calls.discard(answers)
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
        with self._vllm.gate:
            self._vllm.require_whole()
            if self._vllm.calls:
                raise SwapRefused("a call of `answer` or `swap` still waits for the engine.")
            self._is_swapping = True
            self._vllm.calls.add(done)
        try:
            loaded = self._prepare(checkpoint.directory)
            self._vllm.put(Order(checkpoint.directory, self._loaded.directory, done))
            swapped = self._vllm.wait_for(done)
            if isinstance(swapped, EngineError):
                raise type(swapped)(str(swapped)) from swapped
            self._loaded = replace(loaded, facts=replace(loaded.facts, num_swaps=self.facts.num_swaps + 1))
        finally:
            with self._vllm.gate:
                self._vllm.calls.discard(done)
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
        with self._vllm.gate:
            self._vllm.require_whole()
            held = self._adapters.pop(checkpoint.digest, None)
            removed = []
            for digest in [digest for digest, one in self._adapters.items() if one.num_open == 0]:
                if held is None and len(self._adapters) >= self._sharing.num_slots:
                    removed.append(self._adapters.pop(digest).request.lora_int_id)
            if held is None and len(self._adapters) >= self._sharing.num_slots:
                raise SwapRefused(f"all {self._sharing.num_slots} places for adapters are in use")
            # files that are the same, under other settings, need not be told apart
            others = {digest[:12]: one.logprobs for digest, one in self._adapters.items() if one.weights_sha256 != sha256}
            self._vllm.calls.add(done)
        request = vllm_adapters.request_for(checkpoint.digest, next(self._numbers), checkpoint.directory) if held is None else held.request
        try:
            self._vllm.put(Addition(request, removed, others | {"the base": self._vllm.base_logprobs}, done))
            applied = self._vllm.wait_for(done)
        finally:
            with self._vllm.gate:
                self._vllm.calls.discard(done)
        if isinstance(applied, EngineError):
            raise EngineError(str(applied)) from applied
        with self._vllm.gate:
            self._adapters[checkpoint.digest] = held or _Held(request, asker, sha256)
            self._adapters[checkpoint.digest].logprobs = applied.logprobs
            self._loaded = replace(self._loaded, facts=replace(self.facts, num_swaps=self.facts.num_swaps + 1))
        return Swap(self.facts, time.perf_counter() - began - applied.canary.seconds, applied.canary)

    def _asker_of(self, directory: Path) -> Asker:
        """An adapter's own, where it brings another tokenizer or chat template than its base has."""
        digest = tokenizer_digest(directory)
        if digest == self._loaded.tokenizer_digest:
            return self._loaded.asker
        tokenizer = load_tokenizer(self._vllm.config.model_config, directory)
        if why := other_vocabulary(self._loaded.tokenizer, tokenizer):
            raise SwapRefused(why)
        return self._load(directory, self._loaded.build, tokenizer, digest).asker

    def _prepare(self, directory: Path) -> _Loaded:
        """All of a swap that leaves the engine as it is."""
        if self._vllm.config.model_config.quantization is not None:
            raise SwapRefused("the engine quantises weights, and a swap of such weights cannot be proven")
        build = read_build(directory, allow_pickle=self._engine_config.allow_pickle)
        if why := difference(self._loaded.build, build):
            raise SwapRefused(why)
        digest = tokenizer_digest(directory)
        if digest == self._loaded.tokenizer_digest:
            return replace(self._loaded, directory=directory)
        tokenizer = load_tokenizer(self._vllm.config.model_config, directory)
        if why := other_vocabulary(self._loaded.tokenizer, tokenizer):
            raise SwapRefused(why)
        return self._load(directory, build, tokenizer, digest)

    def close(self) -> None:
        """Ends vLLM, its processes and its thread. Calls of `answer` that still wait raise `EngineError`."""
        self._vllm.close()
