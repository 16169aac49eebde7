"""A service as a real process stops cleanly and exits completely on a failure."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_shared.clients import ServiceClient
from mao_shared.errors import PeerUnavailable
from mao_shared.host.sockets import loopback_listeners
from tests.support.node import REPO
from tests.support.ports import free_port

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from pathlib import Path
from fastapi import APIRouter
from fastapi.sse import EventSourceResponse
from mao_shared.reconcile import background
from mao_shared.service.app import make_api, serve
from mao_shared.settings import ServiceSettings
from mao_shared.web.api_pages import make_routes

router, failing = APIRouter(), asyncio.Event()

@router.get("/ticks", response_class=EventSourceResponse)
async def ticks():
    yield {"tick": 1}
    await asyncio.Event().wait()

@router.post("/fail")
async def fail():
    failing.set()

async def controller():
    await failing.wait()
    raise RuntimeError("a bug in the controller")

@asynccontextmanager
async def lifespan(app):
    async with background(controller()):
        yield

routes = make_routes("toolbox", [router])
app = make_api("toolbox", "A test.", routes=routes, lifespan=lifespan, readiness=lambda _: {})
serve(app, "toolbox", ServiceSettings())
"""


class Process:
    """The program above as a process, with its address and log."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def ready(self) -> None:
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"{self.url}/livez")
                    return
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)

    async def ended(self, seconds: float = 8.0) -> tuple[int, str]:
        """Return the exit code and the log; raises TimeoutError after `seconds`."""
        _, log = await asyncio.wait_for(self.process.communicate(), seconds)
        return int(self.process.returncode or 0), log.decode()


@asynccontextmanager
async def toolbox(**environment: str) -> AsyncIterator[Process]:
    port = free_port()
    environ = {**os.environ, "MAO_PORT": str(port), "MAO_HOST": "127.0.0.1", "MAO_LOG_FORMAT": "text"}
    environ |= environment
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=environ, stderr=asyncio.subprocess.PIPE
    )
    try:
        program = Process(process, f"http://127.0.0.1:{port}")
        if not environment:
            await program.ready()
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def program() -> AsyncIterator[Process]:
    async with toolbox() as program:
        yield program


async def test_serve_failed_controller_ends_the_process(program: Process) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(f"{program.url}/fail")
    code, log = await program.ended()
    assert code == -signal.SIGTERM
    assert "FATAL background.failed task=controller" in log
    assert "RuntimeError: a bug in the controller" in log


async def test_serve_open_stream_does_not_hold_up_the_stop(program: Process) -> None:
    async with httpx.AsyncClient() as client, client.stream("GET", f"{program.url}/ticks") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == 'data: {"tick": 1}'
        program.process.send_signal(signal.SIGTERM)
        assert [line async for line in lines if line] == []  # ended in order, not broken off
    code, log = await program.ended()
    assert code == -signal.SIGTERM
    assert log.splitlines()[-1].endswith("toolbox    service.stopped")
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_serve_loopback_binds_ipv4_and_ipv6(program: Process) -> None:
    port = program.url.rpartition(":")[2]
    async with httpx.AsyncClient() as client:
        for host in ("127.0.0.1", "[::1]"):
            assert (await client.get(f"http://{host}:{port}/livez")).status_code == 200


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_serve_machine_without_ipv6_has_one_of_them(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: Any) -> socket.socket:
        if options["family"] == socket.AF_INET6:
            raise OSError(number, "no such address")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    port = free_port()
    [listener] = loopback_listeners(port)
    with listener:
        assert listener.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize(("host", "family"), [("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)])
async def test_serve_service_does_not_start_beside_a_stranger(
    host: str, family: socket.AddressFamily
) -> None:
    """To a browser, the stranger's page at http://localhost:PORT would have the service's origin."""
    with socket.create_server((host, 0), family=family) as stranger:
        port = stranger.getsockname()[1]
        environ = {**os.environ, "MAO_PORT": str(port)}
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, stderr=subprocess.PIPE, env=environ
        )
        code, log = await Process(started, "").ended(60.0)  # the start of Python counts too
    assert code == 1
    assert f"Cannot listen on port {port} of {host}" in log


async def healthy(path: Path) -> bool:
    environ = {**os.environ, "MAO_SOCKET": str(path), "MAO_PORT": "9"}
    script = REPO / "scripts/healthcheck.py"
    check = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", str(script), env=environ)
    return await check.wait() == 0


async def test_serve_service_answers_on_a_socket_and_on_no_port(tmp_path: Path) -> None:
    path = tmp_path / "toolbox.sock"
    assert not await healthy(path)
    for _ in range(2):  # the second one finds what the killed first one has left
        async with (
            toolbox(MAO_SOCKET=str(path)) as program,
            ServiceClient(f"unix://{path}", attempts=20) as client,
        ):
            assert (await client.response("GET", "/readyz")).json()["status"] == "ok"
            assert (await client.response("GET", "/openapi.json")).json()["info"]["title"] == "MAO toolbox"
            assert await healthy(path)
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient() as other:
                    await other.get(f"{program.url}/livez")
        assert path.is_socket()
    async with ServiceClient(f"unix://{path}", attempts=1) as client:
        with pytest.raises(PeerUnavailable, match=f"unix://{path}"):
            await client.response("GET", "/readyz")
