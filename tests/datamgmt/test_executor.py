"""A slow reader blocks no other request, and a disconnected one leaves no file open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

from mao_datamgmt.git_executor import GitExecutor

from .world import PATIENCE, working


async def test_executor_long_queries_block_neither_reads_nor_writes() -> None:
    works, hold = GitExecutor(2), threading.Event()
    try:
        long = [asyncio.ensure_future(works.query(hold.wait, PATIENCE)) for _ in range(8)]
        assert await asyncio.wait_for(works.read(lambda: 1), PATIENCE) == 1
        assert await asyncio.wait_for(works.write(["data"], lambda: 2), PATIENCE) == 2
        hold.set()
        assert await asyncio.gather(*long) == [True] * 8
    finally:
        hold.set()
        works.close()


async def test_executor_aborted_download_closes_its_reader(tmp_path: Path) -> None:
    asked, go, closed = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def pieces() -> Iterator[bytes]:
        try:
            yield b"1"
            asked.set()
            go.wait(PATIENCE)
            yield b"2"
        finally:
            loop.call_soon_threadsafe(closed.set)

    async def download() -> None:
        async for _ in world.manager.stream(pieces()):
            pass

    async with working(tmp_path) as world:
        task = asyncio.create_task(download())
        await asyncio.to_thread(asked.wait, PATIENCE)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        go.set()
        await asyncio.wait_for(closed.wait(), PATIENCE)
