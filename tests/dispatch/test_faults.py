"""Whose fault it is."""

from __future__ import annotations

import pytest

from wdct_dist.dispatch.faults import Fault, classify, reason
from wdct_dist.errors import CheckpointError, EngineError, RunDirError, StorageError


class ActorDiedError(Exception):
    """Named as Ray names it; the sorting looks at names so that it needs no Ray."""


class RayTaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__("wrapped")
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "starting", "fault"),
    [
        (ActorDiedError("gone"), False, Fault.engine_lost),
        (ActorDiedError("gone"), True, Fault.engine_lost),
        (RayTaskError(StorageError("full")), False, Fault.store),
        (RayTaskError(EngineError("out of memory")), True, Fault.checkpoint),
        (RayTaskError(EngineError("step failed")), False, Fault.engine_lost),
        (RayTaskError(CheckpointError("no tokenizer")), True, Fault.checkpoint),
        (RayTaskError(RunDirError("not visible")), True, Fault.run_dir),
        (RayTaskError(ZeroDivisionError("bug")), False, Fault.ours),
        (KeyError("bug"), True, Fault.ours),
    ],
)
def test_a_fault_is_sorted_by_what_was_really_raised(error: Exception, starting: bool, fault: Fault) -> None:
    assert classify(error, starting=starting) is fault


def test_the_reason_is_one_line_and_names_unexpected_errors() -> None:
    assert reason(RayTaskError(EngineError("out of memory\ndetails"))) == "out of memory"
    assert reason(ZeroDivisionError("bug")) == "ZeroDivisionError: bug"
    assert reason(ActorDiedError("long\ntext")) == "the engine's process was lost (ActorDiedError)"
