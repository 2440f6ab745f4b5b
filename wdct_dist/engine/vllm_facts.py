"""What a started vLLM is, for the provenance."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from wdct_dist.engine.protocol import EngineFacts, StartProof
from wdct_dist.engine.vllm_start import has_batch_invariance


def facts_of(config: Any, prompt_format: str, deterministic: bool, start_proof: StartProof | None = None) -> EngineFacts:
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
    if config.lora_config is not None:
        notes.append("adapters share the engine: each is applied beside the base's weights, not merged into them")
    if logits_dtype != "float32":
        notes.append(f"logits are {logits_dtype}: log-odds lie on a coarse grid, and exact ties are common")
    batch_invariant = os.environ.get("VLLM_BATCH_INVARIANT") == "1" and has_batch_invariance()
    if deterministic and not batch_invariant:
        place = "a CPU" if on_cpu else current_platform.get_device_name()
        notes.append(
            f"engine.deterministic has no effect: vLLM has no batch-invariant mode on {place}, so an answer's last bits depend on "
            "what else is in its batch"
        )
    if start_proof is not None and start_proof.num_not_proven:
        notes.append(
            f"{start_proof.num_not_proven:,} tensors or layers could not be compared with the checkpoint's files when the engine started "
            f"(the first: {start_proof.not_proven[0]}); {start_proof.num_tensors:,} were compared and are equal"
        )
    return EngineFacts(
        kind="vllm",
        versions={"vllm": vllm.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__},
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
            **({} if config.lora_config is None else {"max_lora_rank": config.lora_config.max_lora_rank}),
            **({"cpu_cache_gib": (cache.kv_cache_memory_bytes or 0) / 2**30} if on_cpu else {}),
            **({} if on_cpu else {"gpu_memory_utilization": cache.gpu_memory_utilization}),
        },
        notes=tuple(notes),
        start_proof=start_proof,
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
