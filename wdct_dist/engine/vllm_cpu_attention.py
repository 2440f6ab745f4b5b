"""Blocks of 16 tokens in the prefix cache of CPU engines, where vLLM itself takes 32 and more.

Prompts share whole blocks, and what was computed for a reasoning is found again in whole blocks: the smaller they are, the fewer tokens are
computed twice. vLLM's attention for CPUs has a kernel for blocks of 16 (`vec16`, used for odd head sizes) beside those for 32; only the
list of sizes that its backend declares leaves them out. Importing this module has vLLM's registry of backends give the same backend with a
longer list, in this process: each that holds a model has to import it.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.platforms import CpuArchEnum, current_platform
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

BLOCK_SIZE = 16
COMMON_BLOCK_SIZE = 32
"""What every kernel of vLLM's for CPUs takes. Its own choice, 128, is longer than most of our prompts, which then never share a block."""


@register_backend(AttentionBackendEnum.CPU_ATTN)
class SmallBlocks(CPUAttentionBackend):  # type: ignore[misc]
    """vLLM's attention for CPUs, also with blocks of 16 tokens."""

    @staticmethod
    def get_supported_kernel_block_sizes(*args: Any, **kwargs: Any) -> list[int | MultipleOf]:
        return [MultipleOf(BLOCK_SIZE if has_small_blocks() else COMMON_BLOCK_SIZE)]


def has_small_blocks() -> bool:
    """Whether vLLM's kernel for blocks of 16 is built for this processor: on x86."""
    return bool(current_platform.get_cpu_architecture() == CpuArchEnum.X86)


def block_size(dtype: str) -> int:
    """Tokens in a block of an engine that computes in `dtype`. The kernel for AMX, which computes in bfloat16, wants 32."""
    may_be_amx = dtype != "float32" and torch.cpu._is_amx_tile_supported()
    return BLOCK_SIZE if has_small_blocks() and not may_be_amx else COMMON_BLOCK_SIZE
