"""The workers that train one stage together: processes with a copy or a part of the model each, in one process group of torch.

All run the same program on the same records, each on its part of every batch. What is read from or written to the run directory is done
by the first of them, and the others are told. Without a process group there is one worker, the process itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

Told = TypeVar("Told")


def number() -> int:
    """How many there are."""
    return int(dist.get_world_size()) if _are_several() else 1


def is_first() -> bool:
    """Whether this process is the one that reads and writes."""
    return not _are_several() or dist.get_rank() == 0


def from_first(make: Callable[[], Told]) -> Told:
    """What `make` gives on the first worker, on all of them; called there alone. What it raises there is raised on all.

    All workers have to come here, and wait for each other.
    """
    if not _are_several():
        return make()
    told: list[Any] = [None, None]
    if is_first():
        try:
            told = [make(), None]
        except Exception as error:
            told = [None, error]
    dist.broadcast_object_list(told, src=0)
    value, raised = told
    if raised is not None:
        raise raised
    return value  # type: ignore[no-any-return]


def meet() -> None:
    """Returns when all workers are here."""
    if _are_several():
        dist.barrier()


def _are_several() -> bool:
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
