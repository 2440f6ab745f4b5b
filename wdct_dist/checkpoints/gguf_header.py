"""Reads the header of a GGUF file and proves that the file is whole, without reading its tensors.

Format: `GGUF`, version, number of tensors, number of metadata entries, the entries, name, shape, type and offset of each tensor,
then the data.
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from wdct_dist.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True, slots=True)
class GgufHeader:
    architecture: str
    num_tensors: int
    num_parameters: int
    num_splits: int
    """Files that the model is spread over; 1 where it is whole in this one."""


def read_header(file: Path) -> GgufHeader:
    """Raises `CheckpointError` where the file is not GGUF, is cut short (with the bytes it should have and has), or is empty of tensors."""
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        magic = stream.read(4)
        if magic != MAGIC:
            raise CheckpointError(
                f"{file}: no GGUF file: it begins with {magic!r}, not {MAGIC!r}; allowed are GGUF files and directories with safetensors."
            )
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(file, content).read()
            except (struct.error, UnicodeDecodeError):  # an end, or bytes that are no text, within the header
                raise CheckpointError(
                    f"{file}: cut short or broken: its header does not end within the file's {size_bytes:,} bytes; {COPY_AGAIN}."
                ) from None


class _Reader:
    """Walks through the header; `at` is the next byte."""

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        self.file = file
        self.content = content
        self.at = len(MAGIC)

    def read(self) -> GgufHeader:
        version = self._number("I")
        if version not in VERSIONS:
            raise CheckpointError(
                f"{self.file}: GGUF version {version} (or another byte order); allowed are little-endian versions "
                f"{' and '.join(map(str, VERSIONS))}: convert the model again with a current llama.cpp."
            )
        num_tensors, num_entries = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(num_entries):
            key = self._text()
            metadata[key] = self._value(self._number("I"))
        if num_tensors == 0:
            raise CheckpointError(f"{self.file}: holds no tensors (a vocabulary only?); give the file with the weights.")
        sizes = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        start = math.ceil(self.at / alignment) * alignment if isinstance(alignment, int) and alignment > 0 else self.at
        expected_bytes = start + max(end for _, end in sizes)
        if len(self.content) < expected_bytes:
            raise CheckpointError(
                f"{self.file}: cut short: its header says {expected_bytes:,} bytes, the file has {len(self.content):,}; {COPY_AGAIN}."
            )
        num_splits = metadata.get("split.count")
        return GgufHeader(
            architecture=str(metadata.get("general.architecture", "unnamed")),
            num_tensors=num_tensors,
            num_parameters=sum(length for length, _ in sizes),
            num_splits=max(1, num_splits) if isinstance(num_splits, int) else 1,
        )

    def _tensor(self) -> tuple[int, int]:
        """(number of values, end of its bytes from the start of the data)."""
        name = self._text()
        shape = [self._number("Q") for _ in range(self._number("I"))]
        kind, offset = self._number("I"), self._number("Q")
        num_values = math.prod(shape)
        block_values, block_bytes = _block_size(self.file, name, kind)
        return num_values, offset + math.ceil(num_values / block_values) * block_bytes

    def _value(self, kind: int) -> object:
        """One metadata value; arrays are passed over and given as None, since none of them decides anything here."""
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._scalar(kind)
        element, length = self._number("I"), self._number("Q")
        if element in SCALAR_FORMATS:
            self._skip(length * struct.calcsize(SCALAR_FORMATS[element]))
            return None
        for _ in range(length):
            if element == STRING:
                self._skip(self._number("Q"))
            else:
                self._value(element)
        return None

    def _scalar(self, kind: int) -> object:
        if kind not in SCALAR_FORMATS:
            raise CheckpointError(
                f"{self.file}: broken: a metadata value of the unknown type {kind} before byte {self.at:,}; {COPY_AGAIN}."
            )
        value: object = struct.unpack_from(f"<{SCALAR_FORMATS[kind]}", self.content, self.at)[0]
        self.at += struct.calcsize(SCALAR_FORMATS[kind])
        return value

    def _number(self, form: str) -> int:
        value: int = struct.unpack_from(f"<{form}", self.content, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def _skip(self, num_bytes: int) -> None:
        if self.at + num_bytes > len(self.content):
            raise struct.error("end of the file")
        self.at += num_bytes

    def _text(self) -> str:
        num_bytes = self._number("Q")
        self._skip(num_bytes)
        return self.content[self.at - num_bytes : self.at].decode()


def _block_size(file: Path, tensor: str, kind: int) -> tuple[int, int]:
    """(values, bytes) of a block of this type, from the `gguf` package's table."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        raise CheckpointError(f"{file}: GGUF files need the package gguf, which is not installed; `pip install gguf accelerate`.") from None
    sizes: dict[int, tuple[int, int]] = GGML_QUANT_SIZES
    if kind not in sizes:
        raise CheckpointError(
            f"{file}: tensor `{tensor}` has the type {kind}, which the installed gguf package does not know; update it "
            "(`pip install -U gguf`), or give the model in another quantisation."
        )
    return sizes[kind]
