"""Controllers that run beside an app: the process does not live on half-dead when one fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from mao_shared.mao_shared_logs import get_logger

log = get_logger(__name__)


def end_process() -> None:
    """Asks this process to stop in order, so that its supervisor starts it afresh."""
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def background(
    *coroutines: Coroutine[Any, Any, Any], on_failure: Callable[[], None] = end_process
) -> AsyncIterator[None]:
    """Runs the coroutines as tasks for the length of the block and cancels them at its end.

    `on_failure` is called once for each that ends with an exception; ending without one is fine.
    """

    def ended(task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("background.failed", task=task.get_name(), exc_info=error)
        on_failure()

    tasks = [asyncio.create_task(each, name=getattr(each, "__qualname__", None)) for each in coroutines]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
