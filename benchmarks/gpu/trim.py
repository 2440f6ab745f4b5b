"""Makes vLLM's shared libraries small to send: device code that a Hopper GPU does not run is overwritten with zeros.

The libraries stay as long as they were and everything in them stays where it was; zeros take no room once compressed. What is left out
cannot be launched, and says so ("no kernel image is available").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

CONTAINER = struct.pack("<I", 0xBA55ED50)
"""How a container of device code begins: then version and header length in 2 bytes each, and the length of what follows in 8."""

PTX, CUBIN = 1, 2

HOPPER = 90


def entries(library: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(kind, architecture, where its code begins, its bytes) of each piece of device code in a library."""
    at = 0
    while (at := library.find(CONTAINER, at)) >= 0:
        _, header, size = struct.unpack_from("<HHQ", library, at + 4)
        place, end = at + header, at + header + size
        while place + 64 <= end:
            kind, _, head, payload = struct.unpack_from("<HHIQ", library, place)
            [architecture] = struct.unpack_from("<I", library, place + 28)
            if kind not in (PTX, CUBIN):
                break
            yield kind, architecture, place + head, payload
            place += head + payload
        at = end


def trim(library: Path, to: Path) -> tuple[int, int]:
    """Copies `library` to `to` without the device code of other architectures. Returns the bytes of device code before and after."""
    content = bytearray(library.read_bytes())
    before = after = 0
    for kind, architecture, place, size in list(entries(bytes(content))):
        before += size
        if (kind, architecture) == (CUBIN, HOPPER):
            after += size
        else:
            content[place : place + size] = bytes(size)
    to.write_bytes(content)
    to.chmod(library.stat().st_mode)
    return before, after
