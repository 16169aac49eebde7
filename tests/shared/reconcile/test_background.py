"""Controllers that run beside an app, and the shutdown of the real server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mao_shared.reconcile import background


async def test_background_tasks_run_for_the_length_of_the_block() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def works() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(works()):
        await asyncio.wait_for(began.wait(), 60)
        assert not ended.is_set()
    assert ended.is_set()


async def test_background_one_that_fails_asks_for_a_restart(capfd: pytest.CaptureFixture[str]) -> None:
    failed = asyncio.Event()

    async def fails() -> None:
        raise RuntimeError("a bug")

    async with background(fails(), on_failure=failed.set):
        await asyncio.wait_for(failed.wait(), 60)


async def test_background_one_that_is_done_is_fine() -> None:
    failed, done = asyncio.Event(), asyncio.Event()

    async def is_done() -> None:
        done.set()

    async with background(is_done(), on_failure=failed.set):
        await asyncio.wait_for(done.wait(), 60)
    assert not failed.is_set()


async def test_background_blocks_own_error_comes_through() -> None:
    with contextlib.suppress(KeyError):
        async with background(asyncio.sleep(3600)):
            raise KeyError
        pytest.fail("the error was swallowed")
