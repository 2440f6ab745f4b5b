"""An S3 server (moto's) in a process of its own: what it holds stays while it is stopped and started by lines on its input.

Not in the tests' process: moto brings flask, and vLLM's start walks over all loaded modules, where flask's proxies raise.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys

from moto.server import ThreadedMotoServer


def hold(port: int) -> socket.socket:
    """Has the port, on which nothing listens, until it is closed: nobody else is given it while the server is stopped."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the server's may not be over
    with contextlib.suppress(OSError):
        held.bind(("127.0.0.1", port))
    return held


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(port, flush=True)
    held = socket.socket()
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
            held = hold(port)
        else:
            held.close()
            server._port = port
            server.start()
        print("done", flush=True)


if __name__ == "__main__":
    main()
