"""Free ports; no two test processes of one machine are ever given the same, however many run at once."""

from __future__ import annotations

import random
import socket

FIRST, END = 12_000, 32_000  # below those that the kernel hands out by itself
BLOCK = 10  # ports that are claimed together
_claims: dict[str, socket.socket] = {}
_spare: list[int] = []


def claim(name: str) -> bool:
    """Takes a name for as long as this process lives; False when it is taken, here or in another process."""
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(f"\0mao-test-{name}")  # in no folder: the kernel forgets it with the process
    except OSError:
        claimed.close()
        return False
    _claims[name] = claimed
    return True


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, at most `BLOCK`."""
    assert count <= BLOCK
    for _ in range(500):
        first = random.randrange(FIRST, END, BLOCK)
        if claim(f"ports-{first}") and all(map(_is_free, range(first, first + count))):
            return first
    raise RuntimeError("no free ports in a row")


def free_port() -> int:
    """A port that nobody listens on."""
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
