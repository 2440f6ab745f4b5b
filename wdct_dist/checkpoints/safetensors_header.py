"""Reads the header of a safetensors file and proves that the file is whole, without reading its tensors.

Format: 8 bytes with the length N of the header (little-endian), N bytes of JSON that give dtype, shape and data offsets of each
tensor, then the data, without gaps, to the end of the file. (https://github.com/huggingface/safetensors#format)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

LFS_POINTER = b"version https://git-lfs"
COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's entry in a header."""

    name: str
    dtype: str
    """As safetensors spells it, for example `BF16`."""
    shape: tuple[int, ...]
    num_bytes: int


def read_tensors(file: Path) -> tuple[Tensor, ...]:
    """The tensors of a whole safetensors file, in the order of their data.

    Raises `CheckpointError` naming the file, the bytes it should have and the bytes it has, where it is cut short, too long or
    not a safetensors file.
    """
    size_bytes = file.stat().st_size
    header_bytes, entries = _read_header(file, size_bytes)
    placed = sorted((_read_entry(file, name, entry) for name, entry in entries.items()), key=lambda item: item[0])
    end = 0
    for begin, tensor in placed:
        if begin != end:
            raise CheckpointError(
                f"{file}: broken: tensor `{tensor.name}` begins at data byte {begin:,} where byte {end:,} is next; {COPY_AGAIN}."
            )
        end += tensor.num_bytes
    expected_bytes = 8 + header_bytes + end
    if size_bytes != expected_bytes:
        state = "cut short" if size_bytes < expected_bytes else "too long"
        raise CheckpointError(f"{file}: {state}: its header says {expected_bytes:,} bytes, the file has {size_bytes:,}; {COPY_AGAIN}.")
    return tuple(tensor for _, tensor in placed)


def is_lfs_pointer(file: Path) -> bool:
    """Whether the file is the small text that a git clone without Git LFS leaves in place of a large one."""
    with file.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def _read_header(file: Path, size_bytes: int) -> tuple[int, dict[str, Any]]:
    """(length of the header in bytes, entry by tensor name)."""
    if is_lfs_pointer(file):
        raise CheckpointError(f"{file}: a Git LFS pointer of {size_bytes:,} bytes, not the weights; run `git lfs pull` in that clone.")
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if size_bytes < 8 or header_bytes > min(size_bytes - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{file}: cut short, or no safetensors file: its first 8 bytes ask for a file of at least "
                f"{8 + header_bytes:,} bytes, the file has {size_bytes:,}; {COPY_AGAIN}."
            )
        raw = stream.read(header_bytes)
    try:
        header = json.loads(raw)
    except ValueError as error:  # JSON or its encoding
        raise CheckpointError(f"{file}: broken: its header of {header_bytes:,} bytes is not JSON ({error}); {COPY_AGAIN}.") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: broken: its header is a JSON {type(header).__name__}, not an object; {COPY_AGAIN}.")
    header.pop("__metadata__", None)
    return header_bytes, header


def _read_entry(file: Path, name: str, entry: Any) -> tuple[int, Tensor]:
    """(first data byte, tensor) of one entry."""
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{file}: broken: the header's entry for tensor `{name}` lacks dtype, shape or data_offsets; {COPY_AGAIN}."
        ) from None
    bits = DTYPE_BITS.get(dtype)
    if bits is not None and (end - begin) * 8 != bits * math.prod(shape):
        raise CheckpointError(
            f"{file}: broken: tensor `{name}` ({dtype}, shape {list(shape)}) needs {bits * math.prod(shape) // 8:,} bytes, "
            f"its offsets give {end - begin:,}; {COPY_AGAIN}."
        )
    if begin < 0 or end < begin:
        raise CheckpointError(f"{file}: broken: tensor `{name}` has the offsets {begin} to {end}; {COPY_AGAIN}.")
    return begin, Tensor(name, dtype, shape, end - begin)
