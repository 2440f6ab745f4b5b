"""Signals: the first asks for a clean end (units in flight are finished), the second ends at once.

After SIGTERM the units in flight have `TERM_GRACE_S` to end, since cluster managers kill what lingers.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

TERM_GRACE_S = 20.0


class Interrupts:
    """While entered, SIGINT and SIGTERM set `requested` and no longer raise; a further signal raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self.when_requested: Callable[[str], None] | None = None
        """Called once with the reason, in the main thread, between two of its instructions."""
        self._deadline: float | None = None
        self._before: dict[int, Any] = {}

    @property
    def overdue(self) -> bool:
        """Whether waiting for units in flight has to end."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def renew(self) -> None:
        """Takes the signals back from Ray, which puts a handler of its own on SIGTERM when it connects (2.60)."""
        for number in self._before:
            signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def request(self, reason: str) -> None:
        """Asks for a clean end: the first signal, or an engine that asks nothing more."""
        if self.requested is None:
            self.requested = reason
            if self.when_requested is not None:
                self.when_requested(reason)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Ray's handler, where it came first, has the process aborted after three seconds, by this clock, and then calls ours
        signal.alarm(0)
        if self.requested is not None:
            raise KeyboardInterrupt
        self.request(signal.Signals(number).name)
        if number == signal.SIGTERM:
            self._deadline = time.monotonic() + TERM_GRACE_S
