"""The cluster that a run is on: joined where there is an address, else a local Ray of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import ray

from wdct_dist.config.schema import DispatchConfig
from wdct_dist.dispatch.ray_head import knock
from wdct_dist.errors import ConfigError

ASK_WITHOUT_TOKEN = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", namespace=None, timeout=5)
"""

ASK_S = 20.0
"""How long a head node may take to say whether it wants a token; it takes half a second."""


@contextlib.contextmanager
def cluster(config: DispatchConfig) -> Iterator[None]:
    """Joins the cluster at `ray_address` or RAY_ADDRESS, or starts a local Ray and ends it; a joined one is left as it is."""
    if ray.is_initialized():
        yield
        return
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if address:
        try:
            knock(address)
            _init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"dispatch.ray_address: no cluster answers at {address!r} ({str(error).splitlines()[0]}); start one (`ray start "
                "--head`), give its token (RAY_AUTH_TOKEN) where it wants one, or leave the address out for a local Ray."
            ) from None
    else:
        # "local", since without an address Ray joins whatever cluster was last started on this machine
        _init(address="local", include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
    try:
        yield
    finally:
        # only a connection of ours is closed: for a joined cluster this disconnects, for a local one it also ends it
        ray.shutdown()


def _init(**settings: Any) -> None:
    """`ray.init`, which puts a handler of its own on SIGTERM (2.60; it exits at once): ours, which ends cleanly, is put back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**settings)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def head_address() -> str:
    """host:port of the head node of the cluster that was joined or started."""
    return str(ray.get_runtime_context().gcs_address)


def refuse_needless_token() -> None:
    """Raises `ConfigError` where this driver sends a token to a cluster that was started without token authentication.

    The head node answers such a driver, but its workers, which have no token for it, cannot: no actor ever runs (2.60). What the head
    wants is asked from a process of its own, since Ray reads its mode once.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return
    address = head_address()
    command = [sys.executable, "-c", ASK_WITHOUT_TOKEN, address]
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(command, env={**os.environ, "RAY_AUTH_MODE": "disabled"}, capture_output=True, check=True, timeout=ASK_S)
        raise ConfigError(
            f"dispatch.ray_address: the cluster at {address} was started without token authentication, and this driver sends a token "
            "(from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token): Ray starts no engine for it there. Set "
            "RAY_AUTH_MODE=disabled for this command, or start the cluster with RAY_AUTH_MODE=token."
        )
