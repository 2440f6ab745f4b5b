"""One progress display: a live line in a terminal, plain lines where there is none (job logs)."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PLAIN_EVERY_S = 10.0
WINDOW_S = 60.0
"""Rates are those of the last minute, so that they follow a slow start or a lost engine."""


class Progress:
    """Prompts done, prompts a second, tokens a second, time left."""

    def __init__(self, total: int, done: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._done = done
        self._stream = stream or sys.stderr
        self._history: deque[tuple[float, int, int]] = deque()
        self._tokens = 0
        self._printed_at = 0.0
        self._live = self._stream.isatty()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._history.append((time.monotonic(), self._done, 0))
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[line]}"),
                console=Console(file=self._stream),
                transient=False,
            )
            bar.add_task("prompts", total=self._total, completed=self._done, line=self.line())
            bar.start()
            self._bar = bar
        else:
            self._print(self.line())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._update(self._bar)
            self._bar.stop()
        else:
            self._print(self.line())

    def begin(self) -> None:
        """An engine is ready: rates are counted from here, not from the start of the run, while nothing is done yet."""
        if self._tokens == 0 and self._history and self._history[-1][1] == self._done:
            self._history.clear()
            self._history.append((time.monotonic(), self._done, 0))

    def advance(self, prompts: int, tokens: int) -> None:
        now = time.monotonic()
        self._done += prompts
        self._tokens += tokens
        self._history.append((now, self._done, self._tokens))
        while len(self._history) > 2 and now - self._history[0][0] > WINDOW_S:
            self._history.popleft()
        if self._bar is not None:
            self._update(self._bar)
        elif now - self._printed_at > PLAIN_EVERY_S:
            self._print(self.line())

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def line(self) -> str:
        began, done, tokens = self._history[0] if self._history else (time.monotonic(), self._done, 0)
        elapsed = time.monotonic() - began
        share = 100.0 * self._done / self._total if self._total else 100.0
        text = f"{self._done:,} of {self._total:,} prompts ({share:.0f} %)"
        if elapsed > 0 and self._done > done:
            rate = (self._done - done) / elapsed
            left = (self._total - self._done) / rate
            text += f", {rate:,.1f} prompts/s, {(self._tokens - tokens) / elapsed:,.0f} tokens/s, {_duration(left)} left"
        return text

    def _update(self, bar: Bar) -> None:
        from rich.progress import TaskID

        bar.update(TaskID(0), completed=self._done, line=self.line())

    def _print(self, text: str) -> None:
        self._printed_at = time.monotonic()
        print(text, file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
