"""The cluster that a run is on: joined where there is an address, else a local Ray of its own.

Ray takes seconds to start and to end, most of which it waits (2.6 s and 1.4 s on two cores, 2.60). So a connection is made beside what else
there is to do: checkpoints are described meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping

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


LISTED_S = 10.0
"""How long the first node may take to be listed."""


class Connection(threading.Thread):
    """Joins the cluster at `ray_address` or RAY_ADDRESS, or starts a local Ray, and leaves it as it is or ends it.

    All in one thread, from begin to end: the kernel ends what Ray has started with the *thread* that did. A Ray that is there already is
    somebody else's, and left alone.
    """

    def __init__(self, config: DispatchConfig) -> None:
        super().__init__(name="ray")
        self._config = config
        self._is_ready, self._is_over = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        is_ours = not ray.is_initialized()
        try:
            if is_ours:
                _connect(self._config)
        except BaseException as error:
            self._error = error
            return
        finally:
            self._is_ready.set()
        self._is_over.wait()
        if is_ours:
            # for a joined cluster this disconnects, for a local one it also ends it
            ray.shutdown()

    def wait(self) -> None:
        """Returns when Ray is there. Raises `ConfigError` where no cluster answers."""
        self._is_ready.wait()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Returns when it is over."""
        self._is_over.set()
        self.join()


def _connect(config: DispatchConfig) -> None:
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    # else it says that it has put no handler on SIGTERM, as only the main thread could (2.60; one that exits at once): ours stays
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if not address:
        # "local", since without an address Ray joins whatever cluster was last started on this machine
        ray.init(address="local", include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
        return
    try:
        knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"dispatch.ray_address: no cluster answers at {address!r} ({str(error).splitlines()[0]}); start one (`ray start "
            "--head`), give its token (RAY_AUTH_TOKEN) where it wants one, or leave the address out for a local Ray."
        ) from None


def head_address() -> str:
    """host:port of the head node of the cluster that was joined or started."""
    return str(ray.get_runtime_context().gcs_address)


def node_resources() -> list[Mapping[str, float]]:
    """The resources of each node that is there; a local Ray's is listed a moment after it has started."""
    deadline = time.monotonic() + LISTED_S
    while True:
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(node.get("CPU") for node in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def cluster_resources() -> dict[str, float]:
    """The resources of all nodes together."""
    together: Counter[str] = Counter()
    for node in node_resources():
        together.update(node)
    return dict(together)


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
