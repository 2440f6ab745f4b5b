"""The exception tree and the exit codes.

    WdctError                  exit code 1: a fault of ours or of the cluster
    ├── BadInput               exit code 2: the user's configuration, data or checkpoint
    │   ├── ConfigError
    │   ├── DataError
    │   ├── CheckpointError
    │   └── RunDirError
    ├── EngineError            an engine could not start or answer
    ├── StorageError           the run directory could not be written or read
    ├── TrackingError          an experiment tracker did not take a run
    └── Incomplete             exit code 3: some units are not done; the same command goes on

A message says what came, what is allowed and what to do.
"""

from __future__ import annotations

EXIT_COMPLETE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3


class WdctError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code = EXIT_FAILED


class BadInput(WdctError):
    """What the user gave cannot be used as it is."""

    exit_code = EXIT_BAD_INPUT


class ConfigError(BadInput):
    """A key, a type or a value of the configuration."""


class DataError(BadInput):
    """An item file."""


class CheckpointError(BadInput):
    """A checkpoint that cannot be evaluated."""


class RunDirError(BadInput):
    """A run directory that is of another configuration, not a run, or not usable."""


class EngineError(WdctError):
    """An engine that did not start, or died, or gave something that is not an answer."""


class SwapRefused(EngineError):
    """A live engine cannot take a checkpoint in place of its own; it is as it was, and a fresh engine may well take it."""


class StorageError(WdctError):
    """The run directory's store refused to write or read."""


class TrackingError(WdctError):
    """An experiment tracker that is not there or did not take a run; the run itself is as it was."""


class Incomplete(WdctError):
    """The run ended before all units were done; what is done is safe."""

    exit_code = EXIT_INCOMPLETE
