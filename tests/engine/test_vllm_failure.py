"""What is said of an engine that failed: real words of vLLM and torch. Real failures are in test_vllm_start.py."""

from __future__ import annotations

import json
import logging
import logging.config
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wdct_dist.engine.vllm_failure import cause, logged_to, with_advice

ELSEWHERE = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
LOG = """EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 1136, in run_engine_core
    engine_core = EngineCoreProc(*args, **kwargs)
{raised}
Process EngineCore:
RuntimeError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""


class Invalid(Exception):
    """As pydantic's ValidationError tells of its problems."""

    def errors(self) -> list[dict[str, str]]:
        return [{"msg": "Value error, no such architecture"}, {"msg": "max_model_len is too large"}]


def test_an_error_that_says_what_happened_is_told_in_one_line(tmp_path: Path) -> None:
    assert cause(ValueError("no room\n  for 3 GiB"), tmp_path / "errors.log") == "ValueError: no room for 3 GiB"


def test_of_a_refused_configuration_every_problem_is_told(tmp_path: Path) -> None:
    assert (
        cause(Invalid("2 errors, see https://…"), tmp_path / "errors.log")
        == "Value error, no such architecture; max_model_len is too large"
    )


@pytest.mark.parametrize(
    "said",
    [
        ELSEWHERE,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "Worker proc VllmWorker-1 died unexpectedly, shutting down executor.",
    ],
)
def test_an_error_that_only_points_elsewhere_gives_way_to_the_first_cause_in_the_log(said: str, tmp_path: Path) -> None:
    log = tmp_path / "errors.log"
    log.write_text(LOG.format(raised="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert cause(RuntimeError(said), log) == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def test_a_log_that_knows_no_better_leaves_the_error_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "errors.log"
    log.write_text(LOG.format(raised="killed"))
    assert cause(RuntimeError(ELSEWHERE), log) == f"RuntimeError: {ELSEWHERE}"


def test_where_there_is_no_log_the_process_ended_without_a_word(tmp_path: Path) -> None:
    said = cause(RuntimeError(ELSEWHERE), tmp_path / "errors.log")
    assert "ended without a word" in said
    assert "want of memory" in said


def test_a_cause_is_never_longer_than_an_event_should_be(tmp_path: Path) -> None:
    assert len(cause(ValueError("x" * 5000), tmp_path / "errors.log")) == 600


@pytest.mark.parametrize(
    "said",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "ValueError: Free memory on device (3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.3 GiB).",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "ValueError: To serve at least one request, 4.00 GiB KV cache is needed, which is larger than the available KV cache memory.",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 34359738368 bytes.",
    ],
)
def test_every_want_of_memory_comes_with_the_settings_that_help(said: str) -> None:
    told = with_advice(said)
    assert told.startswith(said.rstrip("."))
    for setting in ("engine.max_model_len", "engine.max_num_seqs", "engine.gpu_memory_utilization", "dispatch.tensor_parallel_size"):
        assert setting in told


def test_what_is_not_for_want_of_memory_comes_without_that_advice() -> None:
    said = "ValueError: Model architectures ['NonesuchForCausalLM'] are not supported for now."
    assert with_advice(said) == said


@pytest.fixture
def vllm_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """vLLM's logger as this package sets it up; as it was, afterwards."""
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "warning")
    monkeypatch.setenv("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    monkeypatch.delenv("VLLM_LOGGING_CONFIG_PATH", raising=False)
    monkeypatch.delenv("VLLM_CONFIGURE_LOGGING", raising=False)
    logger = logging.getLogger("vllm")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers[:], logger.level, logger.propagate = before


def test_processes_that_start_meanwhile_write_their_errors_to_the_file_too(
    tmp_path: Path, vllm_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "errors.log"
    with logged_to(log):
        # what vLLM does in each of its processes
        logging.config.dictConfig(json.loads(Path(os.environ["VLLM_LOGGING_CONFIG_PATH"]).read_text()))
        vllm_logger.warning("a warning")
        assert not log.exists()
        vllm_logger.error("RuntimeError: the cause")
    assert "VLLM_LOGGING_CONFIG_PATH" not in os.environ
    assert log.read_text() == "RuntimeError: the cause\n"
    shown = capsys.readouterr().err
    assert "a warning" in shown
    assert "RuntimeError: the cause" in shown
    assert cause(RuntimeError(ELSEWHERE), log) == "RuntimeError: the cause"


def test_who_keeps_a_log_of_their_own_keeps_it(tmp_path: Path, vllm_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_CONFIG_PATH", "/their/own.json")
    with logged_to(tmp_path / "errors.log"):
        assert os.environ["VLLM_LOGGING_CONFIG_PATH"] == "/their/own.json"
    assert os.environ["VLLM_LOGGING_CONFIG_PATH"] == "/their/own.json"
    assert list(tmp_path.iterdir()) == []
