"""vLLM's CPU kernels that take the place of PyTorch's operations: the same numbers, and the engine computes with them."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]


@pytest.fixture(scope="module")
def kernels(cpu):
    cpu.import_kernels()
    from wdct_dist.engine import vllm_cpu_kernels

    return vllm_cpu_kernels


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-6), ("bfloat16", 2**-6)])
@pytest.mark.parametrize("tokens", [1, 33])
def test_the_kernels_agree_with_vllm_s_own_implementation(kernels, dtype, apart, tokens):
    import torch
    from vllm import ir

    torch.manual_seed(0)
    x, residual = torch.randn(2, tokens, 576).to(getattr(torch, dtype))
    weight = torch.rand(576).to(x.dtype)
    for op, inputs in ((ir.ops.rms_norm, (x,)), (ir.ops.fused_add_rms_norm, (x, residual))):
        wanted = op.impls["native"].impl_fn(*(one.clone() for one in inputs), weight, 1e-5)
        with op.set_priority(kernels.PRIORITY[op.name]):
            assert op.dispatch(*inputs, weight, 1e-5).provider == kernels.PROVIDER
            found = op.impls[kernels.PROVIDER].impl_fn(*(one.clone() for one in inputs), weight, 1e-5)
        torch.testing.assert_close(found, wanted, rtol=apart, atol=apart)


def test_what_a_kernel_does_not_take_is_left_to_vllm(kernels):
    import torch
    from vllm import ir

    x, weight = torch.randn(4, 64), torch.rand(64)
    with ir.ops.rms_norm.set_priority(kernels.PRIORITY["rms_norm"]):
        assert ir.ops.rms_norm.dispatch(x, weight, 1e-5).provider == kernels.PROVIDER
        for untaken in (
            (torch.randn(2, 4, 64), weight, 1e-5),
            (torch.randn(4, 128)[:, :64], weight, 1e-5),
            (torch.randn(4, 40), torch.rand(40), 1e-5),
            (x.to(torch.bfloat16), weight, 1e-5),
            (x, None, 1e-5),
            (x, weight, 1e-5, 32),
        ):
            assert ir.ops.rms_norm.dispatch(*untaken).provider == "native"


def test_an_engine_that_runs_eagerly_computes_with_them(kernels, small_model, make_checkpoint, make_prompt):
    from vllm import ir

    from wdct_dist.config.schema import EngineConfig, PromptConfig, SamplingConfig
    from wdct_dist.engine.vllm_engine import start_vllm

    settings = EngineConfig(max_model_len=256, cpu_cache_gib=0.25)
    engine = start_vllm(make_checkpoint(directory=small_model), settings, PromptConfig(), SamplingConfig(), 1)
    try:
        assert engine.answer([make_prompt()], 0)[0].error is None
        assert ir.ops.rms_norm.get_priority()[0] == kernels.PROVIDER
        assert ir.ops.fused_add_rms_norm.get_priority()[0] == kernels.PROVIDER
    finally:
        engine.close()
