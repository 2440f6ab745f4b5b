"""Sorts what went wrong into whose fault it is. Pure: it looks at names and messages, so that it is tested without Ray."""

from __future__ import annotations

from enum import Enum

from wdct_dist.errors import BadInput, EngineError, RunDirError, StorageError


class Fault(Enum):
    """Whose fault, hence what to do."""

    engine_lost = "engine lost"
    """The engine or its process, node or network died: another engine, the units again."""
    store = "store"
    """The run directory cannot be written: end the run, what is done is safe."""
    run_dir = "run directory"
    """The node of the engine does not see the run directory: no engine there can work for this run."""
    checkpoint = "checkpoint"
    """The checkpoint cannot be evaluated: it fails alone, the sweep goes on."""
    ours = "ours"
    """A fault of this program: end the run, show everything."""


LOST = {
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "WorkerCrashedError",
    "NodeDiedError",
    "OutOfMemoryError",
    "LocalRayletDiedError",
    "ObjectLostError",
    "OwnerDiedError",
    "RaySystemError",
    "RpcError",
}
"""Names of Ray's exceptions that say that a process or a node is gone."""


def classify(error: BaseException, *, starting: bool = False) -> Fault:
    """Whose fault `error` is. `starting`: it came while the engine loaded its checkpoint."""
    cause = root_cause(error)
    if any(entry.__name__ in LOST for entry in type(cause).__mro__):
        return Fault.engine_lost
    if isinstance(cause, StorageError):
        return Fault.store
    if isinstance(cause, RunDirError):
        return Fault.run_dir
    if isinstance(cause, BadInput):
        return Fault.checkpoint
    if isinstance(cause, EngineError):
        return Fault.checkpoint if starting else Fault.engine_lost
    return Fault.ours


def root_cause(error: BaseException) -> BaseException:
    """What a remote task really raised, where `error` only wraps it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def reason(error: BaseException) -> str:
    """One line for events and error rows."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines() or [""]
    if any(entry.__name__ in LOST for entry in type(cause).__mro__):
        return f"the engine's process was lost ({type(cause).__name__})"
    return f"{lines[0][:500]}" if isinstance(cause, EngineError | StorageError | BadInput) else f"{type(cause).__name__}: {lines[0][:500]}"
