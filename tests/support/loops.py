"""Make a part of a loop raise once, and check that the loop continues and reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mao_shared.conditions import Conditions

from .waiting import eventually


async def check_loop_survives(
    part: object,
    method: str,
    loop: Callable[[], Coroutine[Any, Any, Any]],
    conditions: Conditions,
    *,
    poke: Callable[[], object] = lambda: None,
) -> list[str]:
    """Make `method` of `part` raise once, wait for its next call, and return the subjects reported.

    `poke` wakes a loop that waits for work.
    """
    plain, calls = getattr(part, method), 0
    shown: list[str] = []
    conditions.subscribe(
        lambda condition: shown.append(condition.subject) if condition.state != "ok" else None
    )

    async def stumbles(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError("an unexpected error")
        return await plain(*args, **kwargs)

    setattr(part, method, stumbles)
    task = asyncio.create_task(loop())
    try:
        await asyncio.sleep(0)
        poke()
        await eventually(lambda: bool(calls or task.done()))
        poke()
        await eventually(lambda: calls > 1 or task.done())
        assert not task.done(), task.exception()
        await eventually(lambda: bool(shown))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return shown
