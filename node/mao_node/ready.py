"""Says when the node is ready and where to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import math

from .settings import NodeSettings
from .supervise import say

BETWEEN_TRIES = 0.2  # seconds; only while the node starts
TELL_AFTER = 10.0  # seconds without getting ready after which a person is told where to look


async def announce_when_ready(settings: NodeSettings) -> None:
    """Asks the gateway until it is ready, then prints the addresses once."""
    host = "127.0.0.1" if settings.gateway_host == "0.0.0.0" else settings.gateway_host  # noqa: S104
    told = asyncio.get_running_loop().time() + TELL_AFTER
    while not await _is_ready(host, settings.gateway_port):
        await asyncio.sleep(BETWEEN_TRIES)
        if asyncio.get_running_loop().time() > told:
            told = math.inf
            say(
                "node",
                f"{settings.node} is not ready yet. What it waits for: {_doctor(settings.gateway_port)}",
            )
    address = f"http://{host}:{settings.gateway_port}"
    say("node", f"{settings.node} is ready: dashboard {address}/  API pages {address}/docs")


def _doctor(port: int) -> str:
    return "maoctl doctor" if port == 8080 else f"MAO_GATEWAY_PORT={port} maoctl doctor"


async def _is_ready(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    return False
