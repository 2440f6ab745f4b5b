from __future__ import annotations

import socket

import pytest

from wdct_dist.dispatch.ray_head import knock


@pytest.mark.parametrize(("family", "host", "address"), [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")])
def test_a_head_that_listens_is_heard_and_one_that_does_not_is_missed(family: socket.AddressFamily, host: str, address: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        place = f"{address}:{server.getsockname()[1]}"
        # the port is ours, so that nobody else listens there either
        with pytest.raises(ConnectionRefusedError):
            knock(place)
        server.listen()
        knock(place)
