"""Makes a part of a loop raise, and watches that the loop goes on and says so."""

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
    """The subjects that were shown as failing; returns when `method`, which raised once, was called again.

    `poke` wakes a loop that waits for something to do.
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
            raise ZeroDivisionError("what nobody has thought of")
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
