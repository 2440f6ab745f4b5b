"""Whether the head node of the cluster is there. Ray itself waits for a lost one without a word, and ends the process after a minute."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType

KNOCK_EVERY_S = 2.0

REFUSALS = 2
"""Knocks in a row that nobody answers, where the host is there, before the head is lost: nothing listens on its port."""

SILENCE_S = 20.0
"""How long the host itself may give no sign before the head is lost: networks lose packets."""

KNOCK_S = 5.0
"""How long a host may take to accept a connection before no cluster is there."""


class HeadLost(Exception):
    """The head node is gone, and with it every actor and all that Ray knows; what is on disk is safe."""


def knock(address: str) -> None:
    """Raises `OSError` where nothing listens at host:port; Ray itself would try for minutes. Other addresses are not looked at."""
    host, colon, port = address.rpartition(":")  # an IPv6 address stands in brackets
    if colon and "//" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


class HeadWatch:
    """Knocks at host:port from a thread of its own, within a `with` block, since Ray's calls block where the head is gone."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head-watch", daemon=True)

    def __enter__(self) -> HeadWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()

    def check(self) -> None:
        """Raises `HeadLost` once the head was found to be gone."""
        if self._lost.is_set():
            raise HeadLost(f"the head node of the cluster, {self.address}, is gone")

    def _watch(self) -> None:
        refusals, answered_at = 0, time.monotonic()
        while not self._over.wait(KNOCK_EVERY_S):
            try:
                knock(self.address)
            except ConnectionRefusedError:
                refusals += 1
            except OSError:
                refusals = 0
            else:
                refusals, answered_at = 0, time.monotonic()
            if refusals >= REFUSALS or time.monotonic() - answered_at > SILENCE_S:
                self._lost.set()
                return
