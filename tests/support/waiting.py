"""Poll a condition with a deadline, where there is no event to wait on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Return as soon as `condition()` holds; raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the things waited for here have no event)
            await asyncio.sleep(0.005)


async def eventually_answers(
    condition: Callable[[], Awaitable[Any]], seconds: float = 30.0, *, interval: float = 0.01
) -> None:
    """Like `eventually`, for an awaitable condition that is checked every `interval` seconds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 (as above)
            await asyncio.sleep(interval)
