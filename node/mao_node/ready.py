"""Says when the node is ready and where to look at it."""

from __future__ import annotations

import asyncio
import contextlib

from .settings import NodeSettings
from .supervise import say

BETWEEN_TRIES = 0.2  # seconds; only while the node starts


async def announce_when_ready(settings: NodeSettings) -> None:
    """Asks the gateway until it is ready, then prints the addresses once."""
    host = "127.0.0.1" if settings.gateway_host == "0.0.0.0" else settings.gateway_host  # noqa: S104
    while not await _is_ready(host, settings.gateway_port):  # noqa: ASYNC110 (HTTP has no event for this)
        await asyncio.sleep(BETWEEN_TRIES)
    address = f"http://{host}:{settings.gateway_port}"
    say("node", f"{settings.node} is ready: dashboard {address}/  API pages {address}/docs")


async def _is_ready(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    return False
