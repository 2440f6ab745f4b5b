"""The progress display where there is no terminal: plain lines for job logs."""

from __future__ import annotations

import io
import re

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
