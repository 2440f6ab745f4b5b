"""The numbers in a safetensors file, one tensor at a time, read as float32 and written back in the file's own precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wdct_dist.checkpoints.safetensors_header import Tensor, read_tensors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

FLOATS = ("BF16", "F16", "F32", "F64")
"""The dtypes that can be read and written here."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's bytes are."""

    file: Path
    begin: int
    tensor: Tensor

    def read_bytes(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.begin)
            return stream.read(self.tensor.num_bytes)

    def write_bytes(self, data: bytes) -> None:
        assert len(data) == self.tensor.num_bytes
        with self.file.open("r+b") as stream:
            stream.seek(self.begin)
            stream.write(data)


def places(file: Path) -> dict[str, Place]:
    """Every tensor of a whole file by name. Raises `CheckpointError` where it is not whole."""
    tensors = read_tensors(file)
    begin = file.stat().st_size - sum(tensor.num_bytes for tensor in tensors)
    found = {}
    for tensor in tensors:
        found[tensor.name] = Place(file, begin, tensor)
        begin += tensor.num_bytes
    return found


def to_float32(data: bytes, tensor: Tensor) -> Array:
    """The numbers of a tensor in one of `FLOATS`, in its shape; exact but for float64."""
    import numpy as np

    if tensor.dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[tensor.dtype]).astype(np.float32)
    return values.reshape(tensor.shape)


def from_float32(values: Array, dtype: str) -> bytes:
    """The inverse: rounded to the nearest number of that dtype, to the even one of two as near. `values` are finite."""
    import numpy as np

    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):  # beyond float16 is infinite, as everywhere
        return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
