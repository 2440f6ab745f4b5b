"""vLLM's own CPU kernels for norms, which it leaves to PyTorch's operations.

On a CPU vLLM counts on a compiler to fuse what lies between the matrix products. Where it runs eagerly, as ours does, a norm is half a
dozen operations over the whole batch instead. Its C kernels for norms are built for CPUs nevertheless, and save a twentieth of an engine's
time (float32 and bfloat16, 135 million weights, vLLM 0.32). They are registered the way that vLLM keeps open for other people's kernels,
once in each process that holds a model: importing this module does so. (Its kernel for SiLU takes twice the time of PyTorch's operations,
in float32; that one is left alone.)
"""

from __future__ import annotations

import torch
from vllm import ir

PROVIDER = "wdct_cpu"
PRIORITY = {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]}
"""For vLLM's `ir_op_priority`. vLLM adds its own implementation for inputs that a kernel does not take."""

VECTOR = 32
"""Elements: the kernels work in vectors of 8 to 32, and rows have to be whole ones."""


def _takes(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return (
        variance_size is None
        and weight is not None
        and weight.dtype == x.dtype
        and x.dim() == 2
        and x.is_contiguous()
        and x.shape[-1] % VECTOR == 0
    )


def _takes_both(
    x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _takes(x, weight, epsilon, variance_size) and x_residual.dtype == x.dtype and x_residual.is_contiguous()


@ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_takes)  # type: ignore[untyped-decorator]
def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> torch.Tensor:
    """x (tokens, hidden), divided by the root of its mean square and multiplied by the weight (hidden)."""
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


@ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_takes_both, inplace=True)  # type: ignore[untyped-decorator]
def fused_add_rms_norm(
    x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of the sum of both (tokens, hidden), and the sum; written over what came."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
