"""Free ports that are unique across all test processes on this machine."""

from __future__ import annotations

import random
import socket

FIRST, END = 12_000, 32_000  # below the kernel's ephemeral range
BLOCK = 10  # ports that are claimed together
_claims: dict[str, socket.socket] = {}
_spare: list[int] = []


def claim(name: str) -> bool:
    """Reserve a name for the lifetime of this process; return False if any process holds it."""
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(f"\0mao-test-{name}")  # abstract socket: the kernel drops it with the process
    except OSError:
        claimed.close()
        return False
    _claims[name] = claimed
    return True


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports, at most `BLOCK`."""
    assert count <= BLOCK
    for _ in range(500):
        first = random.randrange(FIRST, END, BLOCK)
        if claim(f"ports-{first}") and all(map(_is_free, range(first, first + count))):
            return first
    raise RuntimeError("no free ports in a row")


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        if not _spare:
            first = free_ports(BLOCK)
            _spare.extend(range(first, first + BLOCK))
        if _is_free(port := _spare.pop()):
            return port


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
