"""The progress display: plain lines for job logs, one live line in a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time

import pytest

from wdct_dist.dispatch.progress import Progress


def test_job_logs_get_plain_lines_with_rates_and_time_left() -> None:
    stream = io.StringIO()
    with Progress(1000, 200, stream) as progress:
        progress.advance(300, 36_000)
        progress.say("engine lost: engine 0")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "200 of 1,000 prompts (20 %)"
    assert "engine lost: engine 0" in lines
    assert re.fullmatch(r"500 of 1,000 prompts \(50 %\), [\d,.]+ prompts/s, [\d,]+ tokens/s, \d+:\d\d:\d\d left", lines[-1])
    assert "\x1b" not in stream.getvalue()


def test_nothing_to_do_is_all_done() -> None:
    stream = io.StringIO()
    with Progress(0, 0, stream):
        pass
    assert stream.getvalue().splitlines()[-1] == "0 of 0 prompts (100 %)"


def read_to_end(terminal: int) -> str:
    """What a terminal, closed at its other end, still holds: the kernel hands it over in parts."""
    parts = []
    with contextlib.suppress(OSError):  # EIO: the other end is closed and all is read
        while part := os.read(terminal, 65536):
            parts.append(part)
    return b"".join(parts).decode()


def test_a_terminal_gets_one_live_line_and_what_is_said_stays_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # what a terminal can do and how wide it is, a job may have been told otherwise
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream, Progress(1000, 200, stream) as progress:
        progress.advance(300, 36_000)
        progress.say("engine lost: engine 0")
        progress.advance(500, 60_000)
    said = read_to_end(master)
    os.close(master)
    assert "\x1b[2K" in said, "the line is drawn over itself"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace("\r", "\n").splitlines()
    assert "engine lost: engine 0" in [line.strip() for line in lines]
    assert re.search(r"1,000 of 1,000 prompts \(100 %\), [\d,.]+ prompts/s", said)


def test_rates_count_from_the_moment_an_engine_is_ready() -> None:
    progress = Progress(1000, 0, io.StringIO())
    with progress:
        time.sleep(0.3)
        began = time.monotonic()
        progress.begin()
        time.sleep(0.05)
        progress.advance(100, 100)
        said = re.search(r"([\d,.]+) prompts/s", progress.line())
        elapsed_s = time.monotonic() - began
    assert said is not None
    # it is said with one digit behind the point
    assert float(said[1].replace(",", "")) >= 100 / elapsed_s - 0.1
