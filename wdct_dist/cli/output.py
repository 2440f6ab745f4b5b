"""Standard output as it is on a bad day: a reader that goes away, a full disk, an encoding that lacks letters."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing to a file that is standard output, or to a terminal that is gone, fails with."""


def replace_what_cannot_be_said() -> None:
    """From here on, what an output's encoding lacks is replaced, so that no name in a message stops a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def open_closed() -> None:
    """Open standard input, output and error on the null device if the caller has closed them, as `2>&-` does.

    Otherwise the next file or socket would get their number, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            setattr(sys, f"__{name}__", getattr(sys, name))


def discard() -> None:
    """Sends standard output to nowhere: its reader has gone, or it cannot be written, and Python would say so again when it ends."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def unread_is_no_fault() -> Iterator[None]:
    """For what is only shown: where its reader goes away, as in `wdct evaluate … | head`, the command goes on without one."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard()
