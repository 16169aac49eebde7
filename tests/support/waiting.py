"""Waiting for a condition with a deadline, for what offers no event to wait on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Returns as soon as `condition()` holds; raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the things waited for here have no event)
            await asyncio.sleep(0.005)


async def eventually_answers(
    condition: Callable[[], Awaitable[Any]], seconds: float = 30.0, *, interval: float = 0.01
) -> None:
    """As `eventually`, for a condition that has to be awaited; it is checked every `interval` seconds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 (as above)
            await asyncio.sleep(interval)
