from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wdct_dist.checkpoints.safetensors_header import Tensor, read_tensors
from wdct_dist.errors import CheckpointError


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this header as it is, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_tensors_of_a_real_file_are_read_in_the_order_of_their_data(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    tensors = {"b": np.zeros((2, 3), np.float32), "a": np.zeros(5, np.float16), "c": np.zeros((), np.int64)}
    save_file(tensors, file, metadata={"format": "pt"})
    assert {tensor.name: tensor for tensor in read_tensors(file)} == {
        "b": Tensor("b", "F32", (2, 3), 24),
        "a": Tensor("a", "F16", (5,), 10),
        "c": Tensor("c", "I64", (), 8),
    }


def test_types_smaller_than_a_byte_and_unknown_ones_are_read(tmp_path: Path) -> None:
    header = {"x": entry("F4", [4, 2], 0, 4), "y": entry("F8_E4M3", [3], 4, 7), "z": entry("Z9", [3], 7, 8)}
    file = write_raw(tmp_path / "m.safetensors", header, bytes(8))
    assert [(tensor.name, tensor.num_bytes) for tensor in read_tensors(file)] == [("x", 4), ("y", 3), ("z", 1)]


def test_an_empty_tensor_needs_no_bytes(tmp_path: Path) -> None:
    header = {"x": entry("F32", [0, 4], 0, 0), "y": entry("F32", [1], 0, 4)}
    assert len(read_tensors(write_raw(tmp_path / "m.safetensors", header, bytes(4)))) == 2


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"x": np.ones((4, 4), np.float32)}, whole)
    content = whole.read_bytes()
    file = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors: cut short"):
            read_tensors(file)


def test_a_cut_is_reported_with_the_bytes_expected_and_found(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"x": np.ones((500, 4), np.float32)}, file)
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(CheckpointError) as raised:
        read_tensors(file)
    assert str(raised.value) == (
        f"{file}: cut short: its header says {whole:,} bytes, the file has {whole - 3000:,}; copy or download the file again."
    )


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"x": entry("F32", [1], 0, 4)}, bytes(9), "too long: its header says "),
        (b"{not json", b"", "broken: its header of 9 bytes is not JSON"),
        (b"\xff\xfe{}", b"", "is not JSON"),
        ([1, 2], b"", "its header is a JSON list, not an object"),
        ({"x": entry("F32", [2], 0, 4)}, bytes(4), "tensor `x` (F32, shape [2]) needs 8 bytes, its offsets give 4"),
        ({"x": entry("F32", [1], 4, 8)}, bytes(8), "tensor `x` begins at data byte 4 where byte 0 is next"),
        ({"x": entry("F32", [2], 0, 8), "y": entry("F32", [1], 4, 8)}, bytes(8), "tensor `y` begins at data byte 4 where byte 8 is next"),
        ({"x": entry("Z9", [2], 4, 0)}, bytes(8), "tensor `x` has the offsets 4 to 0"),
        ({"x": {"dtype": "F32", "shape": [1]}}, bytes(4), "entry for tensor `x` lacks dtype, shape or data_offsets"),
        ({"x": 3}, bytes(4), "entry for tensor `x` lacks dtype"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4), "entry for tensor `x` lacks"),
    ],
)
def test_a_header_that_contradicts_itself_or_the_file_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    file = write_raw(tmp_path / "m.safetensors", header, data)
    with pytest.raises(CheckpointError) as raised:
        read_tensors(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)
    assert "copy or download the file again" in str(raised.value)


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5368709120\n")
    with pytest.raises(CheckpointError, match=r"a Git LFS pointer of 73 bytes, not the weights; run `git lfs pull`"):
        read_tensors(file)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"PK\x03\x04" + bytes(range(200)))
    with pytest.raises(CheckpointError, match="cut short, or no safetensors file: its first 8 bytes ask for a file of at least"):
        read_tensors(file)


def test_for_every_flipped_bit_of_a_header_we_judge_as_the_safetensors_library_does(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"weight": np.ones((4, 4), np.float32), "norm": np.ones(3, np.float32)}, file)
    content = file.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for bit in range(header_end * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        theirs = judge(lambda: safe_open(file, "numpy").keys(), SafetensorError)
        if "unknown variant" not in theirs:  # a dtype that the library does not know may come with a later version; we let it pass
            ours = judge(lambda: read_tensors(file), CheckpointError)
            assert (ours == "") == (theirs == ""), (bytes(damaged[:header_end]), theirs, ours)


def judge(read: Callable[[], object], refusal: type[Exception]) -> str:
    """The reason for refusing, or nothing."""
    try:
        read()
    except refusal as error:
        return str(error)
    return ""
