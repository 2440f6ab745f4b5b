"""Why vLLM failed, in one line and with advice: from the error that reached us, and from the log of vLLM's processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

_ELSEWHERE = re.compile(r"root cause above|[Ss]ee stack trace|initialization failed|encountered an issue|died unexpectedly")
_RAISED = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
_MEMORY = re.compile(r"out of memory|OutOfMemory|[Aa]vailable memory|[Ff]ree memory|allocate memory|[Kk][Vv] cache|blocks")


def cause(error: BaseException, error_log: Path) -> str:
    """Why vLLM failed, in one line: the error's own words or, where it only points there, those in its processes' log."""
    if hasattr(error, "errors") and callable(error.errors):  # pydantic's, of several lines with an address on the web
        said = "; ".join(str(problem["msg"]) for problem in error.errors())
    else:
        said = f"{type(error).__name__}: {one_line(error)}"
    if _ELSEWHERE.search(said) and error_log.exists():
        raised: list[str] = _RAISED.findall(error_log.read_text(encoding="utf-8", errors="replace"))
        said = next((line for line in raised if not _ELSEWHERE.search(line)), said)
    elif _ELSEWHERE.search(said):
        said = "a process of vLLM's ended without a word; the system may have killed it for want of memory"
    return said[:600]


def with_advice(cause: str) -> str:
    if not _MEMORY.search(cause):
        return cause
    return (
        f"{cause.rstrip('.')}. To need less memory: lower engine.max_model_len or engine.max_num_seqs; to have more: "
        "engine.gpu_memory_utilization (engine.cpu_cache_gib without a GPU), dispatch.tensor_parallel_size, or end what else uses it."
    )


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def logged_to(error_log: Path) -> Iterator[None]:
    """Has vLLM's processes write their errors to a file as well as to stderr.

    What goes wrong in them reaches us only as "see root cause above": the cause itself is nowhere but in their log.
    """
    if "VLLM_LOGGING_CONFIG_PATH" in os.environ or os.environ.get("VLLM_CONFIGURE_LOGGING", "1") == "0":
        yield  # someone keeps their own log
        return
    level = os.environ["VLLM_LOGGING_LEVEL"].upper()
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "vLLM %(levelname)s %(asctime)s %(name)s: %(message)s", "datefmt": "%H:%M:%S"},
            "bare": {"format": "%(message)s"},
        },
        "handlers": {
            "stream": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "level": level,
                "stream": os.environ["VLLM_LOGGING_STREAM"],
            },
            "file": {
                "class": "logging.FileHandler",
                "formatter": "bare",
                "level": "ERROR",
                "filename": str(error_log),
                "delay": True,
            },
        },
        "loggers": {"vllm": {"handlers": ["stream", "file"], "level": level, "propagate": False}},
    }
    path = error_log.with_name("logging.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(path)
    try:
        yield
    finally:
        os.environ.pop("VLLM_LOGGING_CONFIG_PATH", None)
