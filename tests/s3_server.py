"""An S3 server (moto's) in a process of its own: what it holds stays while it is stopped and started by lines on its input.

Not in the tests' process: moto brings flask, and vLLM's start walks over all loaded modules, where flask's proxies raise.
"""

from __future__ import annotations

import logging
import socket
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # bound, and never listened to: while the server is stopped nobody else is given its port, and a server that sets SO_REUSEADDR, as
    # this one does, may listen there
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
        else:
            server.start()
        print("done", flush=True)


if __name__ == "__main__":
    main()
