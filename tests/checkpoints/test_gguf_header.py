from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints.gguf_header import GgufHeader, read_header
from wdct_dist.errors import CheckpointError

pytest.importorskip("gguf")
WriteGguf = Callable[..., Path]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def raw(version: int = 3, num_tensors: int = 0, entries: tuple[bytes, ...] = (), tensors: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, len(entries)) + b"".join(entries) + tensors


def tensor(kind: int) -> bytes:
    return text("x") + struct.pack("<IQIQ", 1, 32, kind, 0)


def test_the_header_of_a_real_file_is_read(write_gguf: WriteGguf) -> None:
    header = read_header(write_gguf())
    assert (header.architecture, header.num_tensors, header.num_splits) == ("llama", 11, 1)
    assert header.num_parameters == 97 * 32 + 4 * 32 * 32 + 3 * 64 * 32 + 3 * 32


def test_a_file_cut_short_anywhere_is_refused(write_gguf: WriteGguf, tmp_path: Path) -> None:
    content = write_gguf().read_bytes()
    file = tmp_path / "cut.gguf"
    for length in range(4, len(content), 37):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.gguf: cut short"):
            read_header(file)


def test_a_cut_is_reported_with_the_bytes_expected_and_found(write_gguf: WriteGguf) -> None:
    file = write_gguf()
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(CheckpointError) as raised:
        read_header(file)
    assert str(raised.value) == (
        f"{file}: cut short: its header says {whole:,} bytes, the file has {whole - 5000:,}; copy or download the file again."
    )


def test_quantised_blocks_alignment_and_nested_arrays_are_counted(tmp_path: Path) -> None:
    entries = (
        text("general.alignment") + struct.pack("<II", 4, 64),
        text("nested") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 8, 1) + text("inner"),
        text("numbers") + struct.pack("<IIQ", 9, 12, 2) + bytes(16),
        text("general.architecture") + struct.pack("<I", 8) + text("own"),
    )
    header = raw(num_tensors=1, entries=entries, tensors=tensor(kind=3))  # Q4_1: 32 values in 20 bytes
    start = -(-len(header) // 64) * 64
    file = tmp_path / "m.gguf"
    file.write_bytes(header.ljust(start, b"\0") + bytes(20))
    assert read_header(file) == GgufHeader("own", 1, 32, 1)
    file.write_bytes(header.ljust(start, b"\0") + bytes(19))
    with pytest.raises(CheckpointError, match=f"its header says {start + 20:,} bytes, the file has {start + 19:,}"):
        read_header(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no GGUF file: it begins with b'', not b'GGUF'"),
        (b"PK\3\4 and more", "no GGUF file: it begins with b'PK\\x03\\x04', not b'GGUF'; allowed are GGUF files and directories"),
        (raw(version=1), "GGUF version 1 (or another byte order); allowed are little-endian versions 2 and 3"),
        (raw(version=3 << 24), "GGUF version 50331648 (or another byte order)"),
        (raw(), "holds no tensors (a vocabulary only?)"),
        (raw(entries=(text("k") + struct.pack("<I", 99),)), "a metadata value of the unknown type 99"),
        (raw(num_tensors=1, tensors=tensor(kind=9999)), "tensor `x` has the type 9999, which the installed gguf package does not know"),
        (raw(entries=(struct.pack("<Q", 2**62),)), "cut short or broken: its header does not end within"),
        (raw(entries=(struct.pack("<Q", 2) + b"\xff\xfe",)), "cut short or broken"),
        (raw(entries=(text("k") + struct.pack("<IIQ", 9, 4, 2**63),)), "cut short or broken"),
    ],
)  # fmt: skip
def test_what_is_not_a_usable_gguf_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        read_header(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)
