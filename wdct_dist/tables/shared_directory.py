"""Prove that the engine of every node writes into the run directory of the driver.

A local path means something else on a node that does not mount the same file system. An engine there would read the prompts of another
run, or write answers that the driver never sees. The driver therefore puts a file with a random name into the run directory, and each
worker looks for it before its engine starts.
"""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator

from wdct_dist.errors import RunDirError
from wdct_dist.tables.storage import TEMPORARY, Store

VISIBLE_S = 10.0
"""How long a network file system may take to show a new file on another node."""

POLL_S = 0.5


@contextlib.contextmanager
def nonce_file(store: Store) -> Iterator[str | None]:
    """Keep an empty file with a random name in the run directory, and yield its name.

    Yield None for an object store: its URI leads to the same bucket on every node.
    """
    if store.local is None:
        yield None
        return
    name = f"{TEMPORARY}nonce-{uuid.uuid4().hex}"
    store.write(name, b"")
    try:
        yield name
    finally:
        (store.local / name).unlink(missing_ok=True)


def require_nonce(store: Store, name: str | None, *, patience_s: float = VISIBLE_S) -> None:
    """Raise `RunDirError` if this node does not see the file that the driver made with `nonce_file`."""
    if name is None:
        return
    deadline = time.monotonic() + patience_s
    while True:
        store.names("")  # listing the directory makes a network file system renew its cached entries
        if store.exists(name):
            return
        if time.monotonic() > deadline:
            raise RunDirError(
                f"run_dir must be the same directory on every node, but node {socket.gethostname()} does not see this run in "
                f"{store.location}. Put run_dir on a file system that all nodes mount at the same path, or in a bucket (s3://…, gs://…)."
            )
        time.sleep(POLL_S)
