"""Weights read ahead in pieces: the same tensors as safetensors reads, whatever the pieces. Without a GPU, so without locked memory."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from wdct_dist.engine import vllm_staged
from wdct_dist.engine.vllm_staged import can_stage, staged_tensors


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        f"layers.{number}.{name}": torch.randn(shape, generator=generator).to(dtype)
        for number in range(20)
        for name, shape, dtype in [("norm", (7,), torch.float32), ("up", (33, 7), torch.bfloat16), ("scale", (), torch.float16)]
    }


@pytest.mark.parametrize("piece_bytes", [16, 462, 2**20])
def test_staged_tensors_are_those_of_the_files_however_they_are_cut(piece_bytes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_staged, "PIECE_BYTES", piece_bytes)
    names = sorted(weights)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    save_file({name: weights[name] for name in names[:30]}, files[0])
    save_file({name: weights[name] for name in names[30:]}, files[1])
    assert can_stage(files)
    staged = dict(staged_tensors(files, "cpu"))
    assert staged.keys() == weights.keys()
    for name, tensor in staged.items():
        assert (tensor.dtype, tensor.shape) == (weights[name].dtype, weights[name].shape)
        assert torch.equal(tensor, weights[name]), name


def test_a_file_that_is_cut_while_it_is_read_raises(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_staged, "PIECE_BYTES", 64)
    file = tmp_path / "a.safetensors"
    save_file(weights, file)
    tensors = staged_tensors([file], "cpu")
    next(tensors)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)
    with pytest.raises(OSError, match="bytes early"):
        list(tensors)


def test_integers_and_pickles_are_not_staged(weights, tmp_path):
    save_file({**weights, "ids": torch.arange(3)}, tmp_path / "a.safetensors")
    assert not can_stage([tmp_path / "a.safetensors"])
    assert not can_stage([tmp_path / "pytorch_model.bin"])
    assert not can_stage([])
