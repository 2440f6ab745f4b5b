"""One piece of work done by several workers together: a run of Ray Train, which places them all at once and joins them in a process group.

Ray Train has no part in what is saved or gone on from: the work itself has to be able to go on from where a killed one was, as any task
of ours. Where one worker is lost Ray Train ends them all, and the task is given again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from wdct_dist.dispatch.task_size import TaskSize
from wdct_dist.errors import BadInput, EngineError, StorageError

START_S = "86400"
"""How long workers may wait until the cluster has room for all of them: for the end of other branches, if need be."""


def work_together(work: Callable[[Any, TaskSize], Any], given: Any, size: TaskSize) -> Any:
    """What the first of `size.workers` workers returns from `work(given, size)`, which all of them run.

    Waits until the cluster has room for all. Raises `EngineError` where one of them was lost, else what one of them raised.
    """
    # workers stay in the directory that the driver is in: paths of a configuration may be relative to it
    os.environ.update({"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": START_S})

    def loop() -> Any:
        return work(given, size)

    with tempfile.TemporaryDirectory() as nothing:  # Ray Train wants a place for checkpoints, of which it is told none
        trainer = TorchTrainer(
            loop,
            # gloo beside nccl: what the workers tell each other, other than gradients, does not go through their GPUs
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if size.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=size.workers,
                use_gpu=size.gpus > 0,
                resources_per_worker={"CPU": size.cpus, **({"GPU": size.gpus} if size.gpus else {})},
            ),
            run_config=RunConfig(name="stage", storage_path=nothing, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            return trainer.fit().return_value
        except WorkerGroupError as error:
            raise find_cause(error.worker_failures.values()) from None
        except ControllerError as error:
            raise EngineError(f"the workers could not be run: {str(error.controller_failure).splitlines()[0]}") from None


def find_cause(failures: Iterable[BaseException]) -> BaseException:
    """The one of the workers' failures that the others follow from. Where one is lost, the others lose their connection to it."""
    raised = [getattr(failure, "_base_exc", failure) for failure in failures]
    own = [error for error in raised if isinstance(error, BadInput | StorageError)]
    if own:
        return own[0]
    lost = [error for error in raised if is_lost(error)]
    if lost:
        return EngineError(f"{len(lost)} of the workers that train together lost, or lost from each other ({type(lost[0]).__name__})")
    return raised[0]


def is_lost(error: BaseException) -> bool:
    """Whether a worker's failure says that it, or the connection to another one, is gone. Gloo has no type for that (torch 2.13)."""
    names = {entry.__name__ for entry in type(error).__mro__}
    return bool(names & {"RayError", "RayTrainError", "DistError"}) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
