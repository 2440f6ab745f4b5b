"""vLLM as an engine. The only file that imports vLLM.

vLLM is built and stepped in one thread of its own (the worker threads of its CPU kernels belong to the thread that started them).
Calls of `answer` render and tokenise in their own threads and hand their prompts over; the engine's thread serves them in order of
arrival, so that several calls share its batches and it never drains between them. What is asked about a prompt is in `steps.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.protocol import EngineFacts, Response
from wdct_dist.engine.render import Renderer
from wdct_dist.engine.steps import Asker, Generated, Generation, Steps
from wdct_dist.errors import BadInput, ConfigError, EngineError
from wdct_dist.prompts.types import Prompt

SLICE = 256
"""Prompts that a call renders before it hands them over: the engine works on the first while the next are rendered."""

AHEAD = 256
"""Requests given to vLLM beyond those that it works on at once: it never waits for us, and what it holds stays bounded."""

LOOK_S = 1.0
"""How often those who wait look whether vLLM's processes are still there."""

CPU_BLOCK_SIZE = 32
"""vLLM's own 128 on a CPU is longer than most of our prompts, which then never share a block. Multiples of 32 only."""

CPU_MAX_NUM_SEQS = 64
"""16 to 128 gave 13 to 16 prompts/s (medians, two busy cores): no difference proven. A step of 64 is soon over."""

WARM_UP_PROMPTS = 64

RESERVED = frozenset({"model", "tokenizer", "skip_tokenizer_init", "runner", "logprobs_mode"})
"""What `engine.extra` may not set: it would change what is evaluated, or what a logprob is."""

_PROCESS_HAS_ENGINE = threading.Lock()
"""vLLM keeps process groups and its forward context in globals: a process has one engine at a time."""


def start_vllm(
    checkpoint: Checkpoint,
    engine: EngineConfig,
    prompt: PromptConfig,
    sampling: SamplingConfig,
    tensor_parallel_size: int,
) -> VllmEngine:
    """An engine that is ready to answer.

    Raises `EngineError` with the cause in one line where vLLM does not start, `CheckpointError` where the chat template does not
    work, `ConfigError` for what `engine.extra` may not set.
    """
    return VllmEngine(checkpoint, engine, prompt, sampling, tensor_parallel_size)


_Answers = queue.SimpleQueue[tuple[int, Response] | EngineError]
"""What a call of `answer` waits on: (place in the call, response), or why there will be none."""


@dataclass(slots=True, eq=False)
class _Task:
    """One prompt of one call, and what it waits for."""

    prompt: Prompt
    trial: int
    steps: Steps
    place: int
    answers: _Answers
    generated: dict[int, Generated] = field(default_factory=dict)
    num_awaited: int = 0
    over: bool = False

    def begin(self) -> list[_Request]:
        """The prompt's first requests."""
        return self._advance(None)

    def take(self, number: int, output: Any) -> list[_Request]:
        """Takes the output of one request; the prompt's next requests once all have come, none where it is answered."""
        if self.over:
            return []
        try:
            self.generated[number] = _generated(output)
        except EngineError as error:
            self.refuse(error)
            return []
        if len(self.generated) < self.num_awaited:
            return []
        return self._advance([self.generated[place] for place in range(self.num_awaited)])

    def _advance(self, generated: list[Generated] | None) -> list[_Request]:
        try:
            wanted = next(self.steps) if generated is None else self.steps.send(generated)
        except StopIteration as end:
            self.finish(end.value)
            return []
        except (EngineError, BadInput) as error:  # of this prompt alone, such as a logprob that is no number
            self.refuse(error)
            return []
        self.generated = {}
        self.num_awaited = len(wanted)
        return [_Request(one, self, number, begins=generated is None) for number, one in enumerate(wanted)]

    def refuse(self, error: Exception) -> None:
        self.steps.close()
        self.finish(Response(self.prompt.prompt_id, self.trial, error=_one_line(error)))

    def finish(self, response: Response) -> None:
        self.over = True
        self.answers.put((self.place, response))


@dataclass(frozen=True, slots=True)
class _Request:
    """One of the requests that a task waits for."""

    generation: Generation
    task: _Task
    number: int
    begins: bool
    """Whether it is of the task's first ones."""


class VllmEngine:
    """One checkpoint in vLLM, ready to answer. Made by `start_vllm`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: EngineConfig,
        prompt: PromptConfig,
        sampling: SamplingConfig,
        tensor_parallel_size: int,
    ) -> None:
        if taken := RESERVED & engine.extra.keys():
            raise ConfigError(f"engine.extra: {', '.join(sorted(taken))} cannot be set there; leave it out.")
        if not _PROCESS_HAS_ENGINE.acquire(blocking=False):
            raise EngineError("this process already has a vLLM engine and can have one at a time; close that one first.")
        self._sampling = sampling
        self._inbox: queue.SimpleQueue[list[_Task] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._open_calls: set[_Answers] = set()
        self._failure: EngineError | None = None
        self._params_of: dict[tuple[tuple[int, ...], int, tuple[str, ...]], Any] = {}
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
            vllm_config = llm.llm_engine.vllm_config
            model_config = vllm_config.model_config
            tokenizer = llm.get_tokenizer()
            renderer = Renderer(tokenizer, prompt.format, prompt)
            speller = LabelSpeller(tokenizer, renderer.encode, model_config.get_vocab_size())
            self._asker = Asker(tokenizer, renderer, speller, sampling, model_config.max_model_len)
            self._facts = _facts(vllm_config, renderer.format.value, engine.deterministic)
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    def answer(self, prompts: Sequence[Prompt], trial: int) -> list[Response]:
        """One response a prompt, in order. Safe to call from several threads at once.

        A prompt that is too long, or that the template, the tokenizer or vLLM refuses, has `error`. A broken or closed engine raises
        `EngineError`, for this call and all later ones.
        """
        answers: _Answers = queue.SimpleQueue()
        with self._gate:
            if self._failure is not None:
                raise EngineError(str(self._failure)) from self._failure
            self._open_calls.add(answers)
        try:
            responses: dict[int, Response] = {}
            num_tasks = 0
            for start in range(0, len(prompts), SLICE):
                tasks = []
                part = prompts[start : start + SLICE]
                for place, (prompt, planned) in enumerate(zip(part, self._asker.begin(part, trial), strict=True), start):
                    if isinstance(planned, Response):
                        responses[place] = planned
                    else:
                        tasks.append(_Task(prompt, trial, planned, place, answers))
                self._inbox.put(tasks)
                num_tasks += len(tasks)
            for _ in range(num_tasks):
                answered = self._next(answers)
                if isinstance(answered, EngineError):
                    raise EngineError(str(answered)) from answered
                place, response = answered
                responses[place] = response
        finally:
            with self._gate:
                self._open_calls.discard(answers)
        return [responses[place] for place in range(len(prompts))]

    def close(self) -> None:
        """Ends vLLM, its processes and its thread. Calls of `answer` that still wait raise `EngineError`."""
        self._inbox.put(None)
        while self._thread.is_alive():
            self._thread.join(LOOK_S)
            self._wake_from_death()
        self._core = None

    def _next(self, answers: _Answers) -> tuple[int, Response] | EngineError:
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

    def _params(self, generation: Generation) -> Any:
        """vLLM's words for a request.

        It takes the logprobs that are read from the log-softmax of the raw logits in float32, whatever the temperature. `logprobs` stays
        unset: it would sort the vocabulary for its top tokens and be limited by `max_logprobs`. Beside requests that read, a request
        that reads nothing gets a row of its own, masked, of the sampler's table (`gather_specific_token_logprobs`).
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        key = generation.read, generation.max_tokens, generation.stop
        if generation.seed is None and key in self._params_of:
            return self._params_of[key]
        params = SamplingParams(
            temperature=0.0 if generation.seed is None else self._sampling.temperature,
            top_p=1.0 if generation.seed is None else self._sampling.top_p,
            seed=generation.seed,
            max_tokens=generation.max_tokens,
            stop=list(generation.stop),
            logprob_token_ids=list(generation.read) or None,
            flat_logprobs=True,
            # only stop strings need vLLM's own text; tags of thinking can be special tokens
            detokenize=bool(generation.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # vLLM's deep copy of these for each request was a third of our cost of a prompt
        )
        if generation.seed is None:
            self._params_of[key] = params
        return params

    def _run(self, checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, started: queue.SimpleQueue[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="wdct-vllm-") as folder:
            error_log = Path(folder) / "errors.log"
            llm: Any = None
            try:
                llm = _build_llm(checkpoint, engine, tensor_parallel_size, error_log)
                _warm_up(llm)
            except BaseException as error:
                broken = EngineError(_with_advice(_cause(error, error_log)))
                broken.__cause__ = error
                _end(None)
                _PROCESS_HAS_ENGINE.release()
                started.put(broken)
                return
            failure = EngineError("the engine is closed.")
            try:
                started.put(llm)
                self._serve(llm.llm_engine)
            except BaseException as error:
                failure = EngineError(f"the engine broke: {_with_advice(_cause(error, error_log))}")
                failure.__cause__ = error
            with self._gate:
                self._failure = failure
                for answers in self._open_calls:
                    answers.put(failure)
            _end(llm)
            _PROCESS_HAS_ENGINE.release()

    def _serve(self, vllm: Any) -> None:
        """The engine's life: takes prompts, feeds vLLM, hands over its outputs; until it is closed. What vLLM raises ends it."""
        scheduler = vllm.vllm_config.scheduler_config
        most_running = scheduler.max_num_seqs + AHEAD
        has_priorities = scheduler.policy == "priority"
        waiting: deque[_Task] = deque()
        ready: deque[_Request] = deque()
        running: dict[str, _Request] = {}
        names = map(str, itertools.count())
        refusals = _refusals()
        while True:
            while not self._inbox.empty() or not (waiting or ready or running):
                tasks = self._inbox.get()
                if tasks is None:
                    return
                waiting.extend(tasks)
            while len(running) < most_running and (ready or waiting):
                if not ready:
                    ready.extend(waiting.popleft().begin())
                    continue
                request = ready.popleft()
                if request.task.over:
                    continue
                name = next(names)
                prompt = {"type": "token", "prompt_token_ids": list(request.generation.token_ids)}
                # what has begun comes first, while its tokens are in the prefix cache
                priority = {} if request.begins or not has_priorities else {"priority": -1}
                try:
                    vllm.add_request(name, prompt, self._params(request.generation), **priority)
                except refusals as error:  # of this request alone; the engine is as whole as before
                    request.task.refuse(error)
                else:
                    running[name] = request
            if running:
                for output in vllm.step():
                    if output.finished:
                        request = running.pop(output.request_id)
                        ready.extend(request.task.take(request.number, output))


def _refusals() -> tuple[type[Exception], ...]:
    """How vLLM says that it will not take a request: by a `ValueError` in 0.26, by a class of its own in 0.32."""
    from vllm import exceptions

    return (ValueError, TypeError, getattr(exceptions, "VLLMClientError", ValueError))


def _generated(output: Any) -> Generated:
    """Raises `EngineError` where vLLM gave a request up."""
    reply = output.outputs[0]
    if reply.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM gave a request up (finish reason: {reply.finish_reason}).")
    logprobs: dict[int, float] = {}
    if reply.logprobs is not None and len(reply.logprobs) > 0:
        first = slice(reply.logprobs.start_indices[0], reply.logprobs.end_indices[0])
        logprobs.update(zip(reply.logprobs.token_ids[first], reply.logprobs.logprobs[first], strict=True))
    # of a stop token vLLM gives the id
    stop = reply.stop_reason if isinstance(reply.stop_reason, str) else None
    return Generated(tuple(reply.token_ids), logprobs, reply.finish_reason, stop, output.num_cached_tokens)


def _build_llm(checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, error_log: Path) -> Any:
    os.environ.update({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"})
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # spawned, not forked: this process has threads, and locks that they hold
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if engine.deterministic and _has_batch_invariance():
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": str(checkpoint.directory),
        "dtype": engine.dtype.value,
        "seed": engine.seed,
        "trust_remote_code": engine.trust_remote_code,
        "load_format": "auto" if engine.allow_pickle else "safetensors",
        "tensor_parallel_size": tensor_parallel_size,
        # never Ray: inside an actor vLLM would place its workers in the cluster by itself
        "distributed_executor_backend": "mp" if tensor_parallel_size > 1 else "uni",
        # what goes on comes before what begins
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    # Prefix caching is left to vLLM, which has it on wherever the model can have it.
    if tensor_parallel_size > 1:
        arguments["distributed_executor_backend"] = "mp"  # within a Ray actor vLLM would start actors of its own
    if engine.max_model_len is not None:
        arguments["max_model_len"] = engine.max_model_len
    if engine.max_num_seqs is not None:
        arguments["max_num_seqs"] = engine.max_num_seqs
    if engine.block_size is not None:
        arguments["block_size"] = engine.block_size
    if current_platform.is_cpu():
        # in this process: it starts in a third of the time, uses every core and leaves nothing behind
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        arguments["kv_cache_memory_bytes"] = int(engine.cpu_cache_gib * 2**30)
        arguments["enforce_eager"] = engine.enforce_eager is not False
        arguments.setdefault("block_size", CPU_BLOCK_SIZE)
        arguments.setdefault("max_num_seqs", CPU_MAX_NUM_SEQS)
    else:
        arguments["gpu_memory_utilization"] = engine.gpu_memory_utilization
        arguments["enforce_eager"] = engine.enforce_eager is True
    arguments |= engine.extra
    with _logged_to(error_log):
        from vllm import LLM

        return LLM(**arguments)


def _has_batch_invariance() -> bool:
    """Whether vLLM's batch-invariant mode runs here: on NVIDIA GPUs from compute capability 8.0 on (its features/batch_invariance page)."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda() and current_platform.has_device_capability(80))


def _warm_up(llm: Any) -> None:
    """Has vLLM do its first batch on made-up prompts: kernels are prepared and memory is touched before the first real one.

    Without it the first 256 prompts of a CPU engine took 24 s, the next 17 s.
    """
    from vllm import SamplingParams

    vocab_size = llm.llm_engine.vllm_config.model_config.get_vocab_size()
    params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
    for number in range(WARM_UP_PROMPTS):
        token_ids = [(number + place) % vocab_size for place in range(4)]
        llm.llm_engine.add_request(f"warm-up {number}", {"type": "token", "prompt_token_ids": token_ids}, params)
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    llm.reset_prefix_cache()


@contextlib.contextmanager
def _logged_to(error_log: Path) -> Iterator[None]:
    """Has vLLM's processes write their errors to a file as well as to stderr.

    What goes wrong in them reaches us only as "see root cause above": the cause itself is nowhere but in their log.
    """
    if "VLLM_LOGGING_CONFIG_PATH" in os.environ or os.environ.get("VLLM_CONFIGURE_LOGGING", "1") == "0":
        yield  # someone keeps their own log
        return
    level = os.environ["VLLM_LOGGING_LEVEL"].upper()
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "vLLM %(levelname)s %(asctime)s %(name)s: %(message)s", "datefmt": "%H:%M:%S"},
            "bare": {"format": "%(message)s"},
        },
        "handlers": {
            "stream": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "level": level,
                "stream": os.environ["VLLM_LOGGING_STREAM"],
            },
            "file": {
                "class": "logging.FileHandler",
                "formatter": "bare",
                "level": "ERROR",
                "filename": str(error_log),
                "delay": True,
            },
        },
        "loggers": {"vllm": {"handlers": ["stream", "file"], "level": level, "propagate": False}},
    }
    path = error_log.with_name("logging.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(path)
    try:
        yield
    finally:
        os.environ.pop("VLLM_LOGGING_CONFIG_PATH", None)


def _end(llm: Any) -> None:
    """Ends vLLM's engine, its processes and process groups; what a dying engine still raises says nothing new."""
    import gc

    with contextlib.suppress(Exception):
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
    with contextlib.suppress(Exception):
        if llm is not None:
            llm.llm_engine.renderer.shutdown()
    with contextlib.suppress(Exception):
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    gc.collect()


_ELSEWHERE = re.compile(r"root cause above|[Ss]ee stack trace|initialization failed|encountered an issue|died unexpectedly")
_RAISED = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
_MEMORY = re.compile(r"out of memory|OutOfMemory|[Aa]vailable memory|[Ff]ree memory|allocate memory|[Kk][Vv] cache|blocks")


def _cause(error: BaseException, error_log: Path) -> str:
    """Why vLLM failed, in one line: the error's own words or, where it only points there, those in its processes' log."""
    if hasattr(error, "errors") and callable(error.errors):  # pydantic's, of several lines with an address on the web
        said = "; ".join(str(problem["msg"]) for problem in error.errors())
    else:
        said = f"{type(error).__name__}: {_one_line(error)}"
    if _ELSEWHERE.search(said) and error_log.exists():
        raised: list[str] = _RAISED.findall(error_log.read_text(encoding="utf-8", errors="replace"))
        said = next((line for line in raised if not _ELSEWHERE.search(line)), said)
    elif _ELSEWHERE.search(said):
        said = "a process of vLLM's ended without a word; the system may have killed it for want of memory"
    return said[:600]


def _with_advice(cause: str) -> str:
    if not _MEMORY.search(cause):
        return cause
    return (
        f"{cause.rstrip('.')}. To need less memory: lower engine.max_model_len or engine.max_num_seqs; to have more: "
        "engine.gpu_memory_utilization (engine.cpu_cache_gib without a GPU), dispatch.tensor_parallel_size, or end what else uses it."
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _facts(config: Any, prompt_format: str, deterministic: bool) -> EngineFacts:
    import torch
    import transformers
    import vllm
    from vllm.platforms import current_platform

    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    on_cpu = current_platform.is_cpu()
    num_devices = config.parallel_config.tensor_parallel_size
    dtype, logits_dtype = (str(kind).removeprefix("torch.") for kind in (model.dtype, model.head_dtype))
    notes = [f"tensor parallel {num_devices}"]
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0":
        notes.append("vLLM runs in the engine's own process")
    if logits_dtype != "float32":
        notes.append(f"logits are {logits_dtype}: log-odds lie on a coarse grid, and exact ties are common")
    batch_invariant = os.environ.get("VLLM_BATCH_INVARIANT") == "1" and _has_batch_invariance()
    if deterministic and not batch_invariant:
        place = "a CPU" if on_cpu else current_platform.get_device_name()
        notes.append(
            f"engine.deterministic has no effect: vLLM has no batch-invariant mode on {place}, so an answer's last bits depend on "
            "what else is in its batch"
        )
    return EngineFacts(
        kind="vllm",
        versions={"vllm": vllm.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        hardware=_processor(torch.get_num_threads()) if on_cpu else f"{num_devices} × {current_platform.get_device_name()}",
        dtype=dtype,
        max_model_len=model.max_model_len,
        settings={
            "prompt_format": prompt_format,
            "logits_dtype": logits_dtype,
            "block_size": cache.block_size,
            "prefix_caching": cache.enable_prefix_caching,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "enforce_eager": model.enforce_eager,
            "seed": model.seed,
            "batch_invariant": batch_invariant,
            "load_format": str(getattr(config.load_config.load_format, "value", config.load_config.load_format)),
            "quantization": model.quantization,
            **({"cpu_cache_gib": (cache.kv_cache_memory_bytes or 0) / 2**30} if on_cpu else {}),
            **({} if on_cpu else {"gpu_memory_utilization": cache.gpu_memory_utilization}),
        },
        notes=tuple(notes),
    )


def _processor(num_threads: int) -> str:
    """The processor's name, and how many of its threads the engine computes with."""
    import platform

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {num_threads} threads"
