"""Starts vLLM with what the configuration says, warms it up, and ends it."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wdct_dist import host_memory
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import EngineConfig
from wdct_dist.engine import vllm_adapters
from wdct_dist.engine.protocol import Sharing
from wdct_dist.engine.vllm_failure import logged_to

CPU_MAX_NUM_SEQS = 64
"""16 to 128 gave 13 to 16 prompts/s (medians, two busy cores): no difference proven. A step of 64 is soon over."""

WARM_UP_PROMPTS = 64

_IMPORTING = threading.Lock()
"""Two threads that import the same modules from both ends may find them half there."""

_not_imported: list[Exception] = []
"""Why vLLM cannot be imported: a second try may fail otherwise, where the first has left something behind."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected inside, but where it is asked for.

    What is imported and built stays, and Python looks through it again each time that it has grown: a fifth of the time of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def import_vllm(engine: EngineConfig) -> None:
    """Imports what vLLM needs before it has a checkpoint, in the environment that the configuration wants; most of a start, and once a
    process. Whoever calls while another thread does waits until that one is through."""
    with _IMPORTING, uncollected():
        if _not_imported:
            raise _not_imported[0]
        try:
            _import_vllm(engine)
            gc.freeze()  # else all that was imported is looked through as soon as garbage is collected again (0.3 s)
        except Exception as error:
            _not_imported.append(error)
            raise


def _import_vllm(engine: EngineConfig) -> None:
    os.environ.update({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"})
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # spawned, not forked: this process has threads, and locks that they hold
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # Triton multiplies float32 in TF32 unless told otherwise: attention in float32, and with `deterministic` every matrix product. Log-odds
    # would be off by what float32 is chosen to avoid, and the canary of a swap would read rounded weights.
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    if engine.deterministic and has_batch_invariance():
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    from vllm import LLM  # noqa: F401


def build_llm(
    checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, error_log: Path, sharing: Sharing | None = None
) -> Any:
    import_vllm(engine)
    with uncollected():
        return _build_llm(checkpoint, engine, tensor_parallel_size, error_log, sharing)


def _build_llm(checkpoint: Checkpoint, engine: EngineConfig, tensor_parallel_size: int, error_log: Path, sharing: Sharing | None) -> Any:
    from vllm import LLM
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
        "worker_extension_cls": "wdct_dist.engine.vllm_worker.SwapWorker",
        "use_tqdm_on_load": False,
    }
    if sharing is not None:
        arguments |= vllm_adapters.arguments(sharing)
    # Prefix caching is left to vLLM, which has it on wherever the model can have it.
    if engine.max_model_len is not None:
        arguments["max_model_len"] = engine.max_model_len
    if engine.max_num_seqs is not None:
        arguments["max_num_seqs"] = engine.max_num_seqs
    if engine.block_size is not None:
        arguments["block_size"] = engine.block_size
    if current_platform.is_cpu():
        from wdct_dist.engine import vllm_cpu_attention, vllm_cpu_kernels

        # in this process: it starts in a third of the time, uses every core and leaves nothing behind
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        arguments["kv_cache_memory_bytes"] = int(engine.cpu_cache_gib * 2**30)
        arguments["enforce_eager"] = engine.enforce_eager is not False
        arguments.setdefault("block_size", vllm_cpu_attention.block_size(engine.dtype.value))
        arguments.setdefault("max_num_seqs", CPU_MAX_NUM_SEQS)
        if arguments["enforce_eager"]:
            arguments["ir_op_priority"] = vllm_cpu_kernels.PRIORITY
    else:
        arguments["gpu_memory_utilization"] = engine.gpu_memory_utilization
        arguments["enforce_eager"] = engine.enforce_eager is True
    arguments |= engine.extra
    with logged_to(error_log):
        if current_platform.is_cpu():
            count_ranks_eagerly()
        # vLLM asks for a collection three times while it starts (0.3 s each): what was imported is left out, until vLLM ends
        gc.freeze()
        llm = LLM(**arguments)
    if current_platform.is_cpu():
        host_memory.keep_freed()
    return llm


def count_ranks_eagerly() -> None:
    """Has vLLM's sampler count as it would without a compiler.

    For each logprob that it reads it also counts how many tokens are as probable, which nobody asks here; it compiles the kernel for that
    when it first does (2 s at each start on a CPU, 0.32). A count is the same number either way.
    """
    from vllm.v1.sample import sampler

    compiled = getattr(sampler, "batched_count_greater_than", None)
    eager = getattr(compiled, "_torchdynamo_orig_callable", None)
    if eager is not None:
        sampler.batched_count_greater_than = eager


def load_tokenizer(model_config: Any, directory: Path) -> Any:
    """The tokenizer of another checkpoint, as vLLM would load it for a fresh engine; not from vLLM's cache, which goes by the path."""
    from vllm.tokenizers import get_tokenizer

    return get_tokenizer(
        str(directory),
        tokenizer_mode=model_config.tokenizer_mode,
        trust_remote_code=model_config.trust_remote_code,
        runner_type=model_config.runner_type,
    )


def has_batch_invariance() -> bool:
    """Whether vLLM's batch-invariant mode runs here: on NVIDIA GPUs from compute capability 8.0 on (its features/batch_invariance page)."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda() and current_platform.has_device_capability(80))


def warm_up(llm: Any) -> None:
    """Has vLLM do its first batch on made-up prompts: kernels are prepared and memory is touched before the first real one.

    Without it the first 256 prompts of a CPU engine took 24 s, the next 17 s. It reads logprobs as real prompts do: vLLM compiles a
    kernel when it first does so, which otherwise held up the first step that reads for 2.5 s.
    """
    from vllm import SamplingParams

    vocab_size = llm.llm_engine.vllm_config.model_config.get_vocab_size()
    params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=[0, 1], detokenize=False)
    for number in range(WARM_UP_PROMPTS):
        token_ids = [(number + place) % vocab_size for place in range(4)]
        llm.llm_engine.add_request(f"warm-up {number}", {"type": "token", "prompt_token_ids": token_ids}, params)
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    llm.reset_prefix_cache()


def end(llm: Any) -> None:
    """Ends vLLM's engine, its processes and process groups; what a dying engine still raises says nothing new.

    `llm` is None where it did not start. An engine that ends in order cleans up itself, and each time takes half a second.
    """
    try:
        if llm is None:
            _clean_up()
        else:
            llm.llm_engine.engine_core.shutdown()
    except Exception:
        with contextlib.suppress(Exception):
            _clean_up()
    with contextlib.suppress(Exception):
        if llm is not None:
            llm.llm_engine.renderer.shutdown()
    gc.unfreeze()
    host_memory.return_freed()


def _clean_up() -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
