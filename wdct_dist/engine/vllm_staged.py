"""The tensors of a checkpoint on a GPU, at the pace of its link: threads read ahead into page-locked memory, from where the GPU copies.

vLLM's own way maps the files and copies from the mapping: one thread takes a page fault every 4 KiB, and the driver copies everything
once more because such memory cannot be reached by the GPU itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.safetensors_header import Tensor, read_tensors

PIECE_BYTES = 16 * 2**20
"""Read at a time, and the size of a page-locked buffer: long enough for the link's full pace, short enough to be locked in no time."""

NUM_BUFFERS = 16
"""As many threads read. One copies some 5 to 10 GB/s out of the page cache; a link takes 25 to 55."""

TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def can_stage(files: Sequence[Path]) -> bool:
    """Whether all tensors of the files are of plain floating-point types."""
    return bool(files) and all(
        file.suffix == ".safetensors" and all(tensor.dtype in TORCH_NAMES for tensor in read_tensors(file)) for file in files
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of one tensor."""

    descriptor: int
    place: int
    """In the file."""
    start: int
    """In the tensor."""
    stop: int


def staged_tensors(files: Sequence[Path], device: Any) -> Iterator[tuple[str, Any]]:
    """Name and tensor on `device`, in the order of the files. Each is whole for what is computed after it on the current stream.

    Raises `OSError` where a file cannot be read to its end, `CheckpointError` where it is not whole.
    """
    import torch

    is_gpu = torch.device(device).type == "cuda"
    planned = [(file, tensor, begin) for file in files for tensor, begin in _placed(file)]
    descriptors = {file: os.open(file, os.O_RDONLY) for file in files}
    pieces = iter([piece for file, tensor, begin in planned for piece in _pieces(descriptors[file], tensor, begin)])
    buffers = [torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=is_gpu) for _ in range(NUM_BUFFERS)]
    pool = ThreadPoolExecutor(NUM_BUFFERS, thread_name_prefix="wdct-staged")
    ahead: deque[tuple[_Piece, Any, Future[None]]] = deque()

    def read_next(buffer: Any, copied: Any) -> None:
        if (piece := next(pieces, None)) is not None:
            ahead.append((piece, buffer, pool.submit(_read, piece, buffer, copied)))

    try:
        for buffer in buffers:
            read_next(buffer, None)
        for _, tensor, _ in planned:
            whole = torch.empty(tensor.num_bytes, dtype=torch.uint8, device=device)
            num_copied = 0
            while num_copied < tensor.num_bytes:
                piece, buffer, being_read = ahead.popleft()
                being_read.result()
                whole[piece.start : piece.stop].copy_(buffer[: piece.stop - piece.start], non_blocking=is_gpu)
                copied = None
                if is_gpu:
                    copied = torch.cuda.Event()
                    copied.record()
                num_copied = piece.stop
                read_next(buffer, copied)
            yield tensor.name, whole.view(getattr(torch, TORCH_NAMES[tensor.dtype])).reshape(tensor.shape)
        if is_gpu:
            torch.cuda.current_stream().synchronize()  # the buffers are given back
    finally:
        pool.shutdown(cancel_futures=True)
        for descriptor in descriptors.values():
            os.close(descriptor)


def _placed(file: Path) -> Iterator[tuple[Tensor, int]]:
    """Tensors in the order of their data, each with the place in the file where its data begins."""
    tensors = read_tensors(file)
    begin = file.stat().st_size - sum(tensor.num_bytes for tensor in tensors)
    for tensor in tensors:
        yield tensor, begin
        begin += tensor.num_bytes


def _pieces(descriptor: int, tensor: Tensor, begin: int) -> Iterator[_Piece]:
    for start in range(0, tensor.num_bytes, PIECE_BYTES):
        yield _Piece(descriptor, begin + start, start, min(start + PIECE_BYTES, tensor.num_bytes))


def _read(piece: _Piece, buffer: Any, copied: Any) -> None:
    """Fills the buffer, once the copy that was made from it before is done. Reading leaves Python's lock free."""
    if copied is not None:
        copied.synchronize()
    memory = memoryview(buffer.numpy())
    done, wanted = 0, piece.stop - piece.start
    while done < wanted:
        num_read = os.preadv(piece.descriptor, [memory[done:wanted]], piece.place + done)
        if num_read == 0:
            raise OSError(f"a file of weights ended {wanted - done:,} bytes early while it was read")
        done += num_read
