"""Blocks of 16 tokens on a CPU: vLLM takes them, chooses its kernel for them, and is not given them where it has none."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]


@pytest.fixture(scope="module")
def attention(cpu):
    from wdct_dist.engine import vllm_cpu_attention

    return vllm_cpu_attention


def test_vllm_finds_the_backend_that_takes_small_blocks(attention):
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    backend = AttentionBackendEnum.CPU_ATTN.get_class()
    assert backend is attention.SmallBlocks
    assert backend.get_name() == "CPU_ATTN"
    smallest = attention.BLOCK_SIZE if attention.has_small_blocks() else attention.COMMON_BLOCK_SIZE
    assert [size for size in range(1, 65) if backend.supports_block_size(size)] == list(range(smallest, 65, smallest))


@pytest.mark.parametrize(
    ("architecture", "amx", "sizes"),
    [
        ("X86", False, {"float32": 16, "bfloat16": 16, "auto": 16}),
        ("X86", True, {"float32": 16, "bfloat16": 32, "auto": 32}),
        ("ARM", False, {"float32": 32, "bfloat16": 32, "auto": 32}),
    ],
)
def test_blocks_are_as_small_as_the_fastest_kernel_allows(attention, monkeypatch, architecture, amx, sizes):
    import torch
    from vllm.platforms import CpuArchEnum, current_platform

    monkeypatch.setattr(type(current_platform), "get_cpu_architecture", lambda *self: CpuArchEnum[architecture])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert {dtype: attention.block_size(dtype) for dtype in sizes} == sizes


@pytest.mark.parametrize("computed", [0, 16, 40])
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("bfloat16", 2**-6)])
def test_the_kernel_for_blocks_of_16_gives_attention(cpu, attention, computed, dtype, apart):
    """Of the tokens behind `computed` ones that are in the cache, in blocks that lie in no order."""
    import torch
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    if not attention.has_small_blocks():
        pytest.skip("there is no kernel for blocks of 16 here")
    cpu.import_kernels()
    torch.manual_seed(0)
    heads, kv_heads, head_size, length, block = 6, 2, 64, 55, attention.BLOCK_SIZE
    kind = getattr(torch, dtype)
    isa = _get_attn_isa(kind, block, head_size)
    assert isa == "vec16"
    query = torch.randn(length, heads, head_size).to(kind)
    key, value = torch.randn(2, length, kv_heads, head_size).to(kind)
    blocks = torch.tensor([[5, 2, 7, 1]], dtype=torch.int32)
    slots = torch.tensor([int(blocks[0, place // block]) * block + place % block for place in range(length)], dtype=torch.int64)
    key_cache, value_cache = torch.zeros(2, 8, kv_heads, block, head_size).to(kind)
    ops.cpu_attn_reshape_and_cache(key, value, key_cache, value_cache, slots, isa)
    asked = length - computed
    starts, lengths = torch.tensor([0, asked], dtype=torch.int32), torch.tensor([length], dtype=torch.int32)
    metadata = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=1,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_size,
        seq_lens=lengths,
        dtype=kind,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=-1,
        isa=isa,
        enable_kv_split=False,
    )
    found = torch.empty(asked, heads, head_size, dtype=kind)
    ops.cpu_attention_with_kv_cache(
        query=query[computed:].contiguous(),
        key_cache=key_cache,
        value_cache=value_cache,
        output=found,
        query_start_loc=starts,
        seq_lens=lengths,
        scale=head_size**-0.5,
        causal=True,
        alibi_slopes=None,
        sliding_window=-1,
        block_table=blocks,
        softcap=0,
        scheduler_metadata=metadata,
        s_aux=None,
    )
    q, k, v = (one.float().transpose(0, 1) for one in (query, key, value))
    k, v = (one.repeat_interleave(heads // kv_heads, dim=0) for one in (k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)[computed:]
    torch.testing.assert_close(found.float(), wanted, rtol=apart, atol=apart)
