"""The runner as a process with real etcd and Docker continues after SIGKILL where it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mao_runner.drivers.docker import DockerDriver
from mao_shared.clients.responses import read_events_async
from mao_shared.models import ResolvedImage, Run
from mao_shared.states import StepPhase
from mao_shared.store import Store
from tests.support.docker import Engine
from tests.support.etcd import EtcdServer
from tests.support.ports import free_port
from tests.support.waiting import eventually

from .harness import NODE, Bench, ready_run

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
COUNTS = "cd /usr/src/app/data; echo begun >> count; until [ -e gate ]; do sleep 0.05; done; echo done"


class RunnerProcess:
    def __init__(self, root: Path, etcd: EtcdServer) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ,
            "MAO_NODE": NODE,
            "MAO_DATA_DIR": str(root),
            "MAO_PORT": str(self.port),
            "MAO_ETCD_ENDPOINTS": etcd.endpoints,
            "MAO_LEFTOVER_GRACE": "0.2",
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the process; stop it at the end unless the test has killed it."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mao_runner", env=self.env)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            code = await asyncio.wait_for(process.wait(), 60)
            assert code in (0, -signal.SIGTERM, -signal.SIGKILL)

    async def follow(self, run_id: str, begun: asyncio.Event | None = None) -> str:
        """The data of a log's events, to the end; asked for again until the process answers.

        `begun` is set when the first event is awaited.
        """
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            for _ in range(400):
                try:
                    async with client.stream("GET", f"/runs/{run_id}/logs?follow=true") as answer:
                        answer.raise_for_status()
                        if begun is not None:
                            begun.set()
                        return "".join([e.data async for e in read_events_async(answer.aiter_lines())])
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        raise TimeoutError("the process does not answer")


@pytest.fixture
async def bench(tmp_path: Path, etcd_store: Store, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    yield Bench(tmp_path, driver, etcd_store)
    await driver.close()
    installation = (tmp_path / "installation").read_text().strip()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


def gated_run(image: str) -> Run:
    pinned = ResolvedImage(name=image, pinned=image, platform="linux/amd64")
    return ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["sh", "-c", COUNTS])


@pytest.mark.parametrize("at", [StepPhase.STARTING, StepPhase.RUNNING])
async def test_process_killed_in_mid_run_ends_run_once(
    bench: Bench, etcd_server: EtcdServer, engine: Engine, tool_image: str, at: StepPhase
) -> None:
    process = RunnerProcess(bench.root, etcd_server)
    run = await bench.submit(gated_run(tool_image))
    data = bench.data.workspace(run.id, 0, 1).data
    async with process.running() as running:
        await bench.phase(run.id, at)
        running.kill()
    (data / "gate").touch()
    async with process.running():
        step = await bench.left(run.id)
        await eventually(lambda: not engine.containers(mao_run=run.id))
    assert (step.phase, step.attempt) == (StepPhase.EXITED, 1)
    assert (data / "count").read_text() == "begun\n"
    assert bench.log(run.id) == "done\n"


async def test_process_stop_leaves_container_running(
    bench: Bench, etcd_server: EtcdServer, engine: Engine, tool_image: str
) -> None:
    process = RunnerProcess(bench.root, etcd_server)
    run = await bench.submit(gated_run(tool_image))
    async with process.running() as running:
        await bench.phase(run.id, StepPhase.RUNNING)
        begun = asyncio.Event()
        following = asyncio.create_task(process.follow(run.id, begun))
        await asyncio.wait_for(begun.wait(), 30)
        running.terminate()
        assert await asyncio.wait_for(running.wait(), 60) in (0, -signal.SIGTERM)
        assert "done" not in await asyncio.wait_for(following, 60)
    assert [container.status for container in engine.containers(mao_run=run.id)] == ["running"]
    (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
    async with process.running():
        assert '"done\\n"' in await process.follow(run.id)
        assert (await bench.left(run.id)).phase is StepPhase.EXITED
