"""Long pieces of work as Ray tasks, each in a process of its own: given when what they build on is done, several at once where the cluster
has room, and given again where their process or node is lost.

What a task does is the caller's; it has to be able to go on from where a killed one was. `ray_environment.prepare` comes before this is
imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray

from wdct_dist.config.schema import DispatchConfig
from wdct_dist.dispatch.faults import Fault, classify, reason, root_cause
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.ray_cluster import Connection, head_address, node_resources
from wdct_dist.dispatch.ray_head import HeadLost, HeadWatch
from wdct_dist.dispatch.task_size import TaskSize
from wdct_dist.errors import Incomplete

POLL_S = 0.5
"""How often the driver looks up from waiting, for signals and for the head node."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Task(Generic[Result]):
    """A piece of work."""

    name: str
    after: str | None
    """The task whose result it builds on."""
    prepare: Callable[[Result | None], Any]
    """From that task's result to what the work is given; called in the driver, when it is due."""


@dataclass(slots=True)
class Outcome(Generic[Result]):
    """What became of the tasks, by name. A task that is in neither was not begun, or not over when the end came."""

    results: dict[str, Result] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)
    """With what it raised; those that build on it are not begun."""
    interrupted: str | None = None


def run_tasks(
    tasks: Sequence[Task[Result]],
    work: Callable[[Any, TaskSize], Result],
    size: Callable[[Sequence[Mapping[str, float]]], TaskSize],
    config: DispatchConfig,
    *,
    max_attempts: int,
    take: Callable[[Result], bool],
    say: Callable[..., None],
    watch: Callable[[], None],
) -> Outcome[Result]:
    """Does all tasks that can be done, in the cluster that `config` names.

    `work` is a function of a module, called with what `prepare` gave and the task's size, by each of its workers. `size`: from the
    resources of the nodes to what a task asks for. `take` is given each result as it comes, and returns whether others may build on it.
    `say` is told what happens, and `watch` is called every while. Raises what is a fault of the store, and `Incomplete` where the head node
    is lost.
    """
    with contextlib.ExitStack() as cluster:
        connection = Connection(config)
        connection.start()
        cluster.callback(connection.leave)
        connection.wait()
        head = cluster.enter_context(HeadWatch(head_address()))
        driver = _Driver(tasks, work, size(node_resources()), max_attempts, take, say)
        # after Ray, which puts a handler of its own on SIGTERM that aborts the process (2.60)
        interrupts = cluster.enter_context(Interrupts())
        try:
            driver.run(head, interrupts, watch)
        except HeadLost as lost:
            say("head lost", reason=str(lost))
            raise Incomplete(
                f"{lost}, and with it the training under way; what was saved is safe. Start the cluster again, and give the same command."
            ) from None
        finally:
            driver.cancel()
        return driver.outcome


class _Driver(Generic[Result]):
    def __init__(
        self,
        tasks: Sequence[Task[Result]],
        work: Callable[[Any, TaskSize], Result],
        size: TaskSize,
        max_attempts: int,
        take: Callable[[Result], bool],
        say: Callable[..., None],
    ) -> None:
        self.outcome: Outcome[Result] = Outcome()
        self._waiting = list(tasks)
        self._attempts: dict[str, int] = {}
        self._running: dict[Any, tuple[Task[Result], Any]] = {}
        self._size = size
        self._max_attempts = max_attempts
        self._take = take
        self._is_built_on: dict[str, bool] = {}
        self._say = say
        # a process for each task: what it had of a device's memory goes with it; given again by us, since only we know what is told
        self._remote = (
            ray.remote(num_cpus=size.cpus, num_gpus=size.gpus, max_calls=1, max_retries=0)(work)
            if size.workers == 1
            # it only waits for its workers, which end with it, and have what was asked for
            else ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_shared_out(work))
        )

    def run(self, head: HeadWatch, interrupts: Interrupts, watch: Callable[[], None]) -> None:
        self._give()
        while self._running and interrupts.requested is None:
            head.check()
            watch()
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=POLL_S)
            for call in done:
                self._record(call)
            self._give()
        self.outcome.interrupted = interrupts.requested

    def cancel(self) -> None:
        for call in self._running:
            with contextlib.suppress(Exception):
                ray.cancel(call, force=True)
        self._running.clear()

    def _give(self) -> None:
        """Gives what is due to Ray, which begins it as soon as there is room."""
        for task in list(self._waiting):
            if task.after is None or task.after in self.outcome.results:
                self._waiting.remove(task)
                if task.after is None:
                    self._begin(task, task.prepare(None))
                elif self._is_built_on[task.after]:
                    self._begin(task, task.prepare(self.outcome.results[task.after]))

    def _begin(self, task: Task[Result], given: Any) -> None:
        self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
        self._running[self._remote.remote(given, self._size)] = task, given
        shared_by = {"workers": self._size.workers} if self._size.workers > 1 else {}
        self._say("task given", task=task.name, attempt=self._attempts[task.name], cpus=self._size.cpus, gpus=self._size.gpus, **shared_by)

    def _record(self, call: Any) -> None:
        task, given = self._running.pop(call)
        try:
            result = ray.get(call)
        except Exception as error:
            fault = classify(error)
            if fault is Fault.store:
                raise root_cause(error) from None
            if fault is Fault.engine_lost and self._attempts[task.name] < self._max_attempts:
                self._say("task lost", task=task.name, reason=_reason(error), attempt=self._attempts[task.name])
                self._begin(task, given)
                return
            self.outcome.failed[task.name] = root_cause(error)
            self._say("task failed", task=task.name, reason=_reason(error))
        else:
            self.outcome.results[task.name] = result
            self._is_built_on[task.name] = self._take(result)


def _shared_out(work: Callable[[Any, TaskSize], Result]) -> Callable[[Any, TaskSize], Result]:
    def do(given: Any, size: TaskSize) -> Result:
        from wdct_dist.dispatch.ray_train import work_together

        return work_together(work, given, size)  # type: ignore[no-any-return]

    return do


def _reason(error: BaseException) -> str:
    return reason(error).replace("the engine's process", "its process")
