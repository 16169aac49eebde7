"""Forked services behave like processes that were started separately."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mao_node.fork_server import ForkedProcess, ForkServer, can_fork
from mao_node.processes import ProcessSpec
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(not can_fork(), reason="needs Linux with pidfd_open"),
    pytest.mark.asyncio(loop_scope="module"),
]

PR_SET_CHILD_SUBREAPER = 36
WAITS = (
    "import os, signal\nprint(os.environ['WORD'], os.getsid(0) == os.getpid(), flush=True)\nsignal.pause()\n"
)
SUPERVISES = """
import asyncio, os
from mao_node.fork_server import ForkServer
from mao_node.processes import ProcessSpec

async def main():
    fork_server = ForkServer(os.environ)
    env = {"WORD": "hello", "PATH": os.environ["PATH"]}
    forked = await fork_server.fork(ProcessSpec("waits", ["waits"], [], env, "waits"))
    await forked.stdout.readline()
    print(forked.pid, fork_server._process.pid, flush=True)
    await forked.wait()

asyncio.run(main())
"""
TELLS_GRPC = "import os\nprint(os.environ['GRPC_VERBOSITY'], os.environ['GRPC_ENABLE_FORK_SUPPORT'])\n"
LEAVES_AN_ORPHAN = (
    "import subprocess\nprint(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True)\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fork_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ForkServer]:
    """The server of all tests, for its start takes half a second; it replaces one that a test has ended."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "waits.py").write_text(WAITS)
    (folder / "tells_grpc.py").write_text(TELLS_GRPC)
    (folder / "leaves_an_orphan.py").write_text(LEAVES_AN_ORPHAN)
    fork_server = ForkServer(with_modules(folder))
    yield fork_server
    await fork_server.close()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def with_modules(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}


async def ended(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            over = asyncio.Event()
            asyncio.get_running_loop().add_reader(descriptor, over.set)
            await asyncio.wait_for(over.wait(), 60)
            asyncio.get_running_loop().remove_reader(descriptor)
        finally:
            os.close(descriptor)


def service(module: str, **env: str) -> ProcessSpec:
    return ProcessSpec(module, ["python", "-m", module], [], env, module)


async def killed_by_us(*services: ForkedProcess) -> None:
    """SIGKILL ends them; their output ends too."""
    for forked in services:
        forked.send_signal(signal.SIGKILL)
        assert await forked.wait() == -signal.SIGKILL
        await forked.stdout.read()


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


async def test_fork_has_environment_session_name_parent_and_exit_code(
    fork_server: ForkServer,
) -> None:
    forked = await fork_server.fork(service("waits", WORD="hello"))

    assert await forked.stdout.readline() == b"hello True\n"
    assert command_line(forked.pid) == ["python", "-m", "waits"]
    assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{forked.pid}/status").read_text()
    forked.send_signal(signal.SIGTERM)
    assert await forked.wait() == -signal.SIGTERM
    assert await forked.stdout.read() == b""


async def test_fork_of_a_failing_module_prints_its_traceback(fork_server: ForkServer) -> None:
    forked = await fork_server.fork(service("no_such_module"))

    assert b"No module named no_such_module" in await forked.stdout.read()
    assert await forked.wait() == 1


async def test_fork_orphans_end_with_the_service(fork_server: ForkServer) -> None:
    forked = await fork_server.fork(service("leaves_an_orphan", PATH=os.environ["PATH"]))

    orphan = int(await forked.stdout.readline())

    assert await forked.wait() == 0
    assert await forked.stdout.read() == b""
    assert not Path(f"/proc/{orphan}").exists()


async def test_fork_server_services_outlive_it_and_the_next_gets_a_new_one(fork_server: ForkServer) -> None:
    first = await fork_server.fork(service("waits", WORD="first"))
    await first.stdout.readline()

    await fork_server.close()

    second = await fork_server.fork(service("waits", WORD="second"))
    assert await second.stdout.readline() == b"second True\n"
    assert first.returncode is None
    await killed_by_us(first, second)


async def test_fork_server_killed_is_replaced_by_the_next_fork(fork_server: ForkServer) -> None:
    first = await fork_server.fork(service("waits", WORD="first"))
    killed = fork_server._process
    assert killed is not None
    killed.kill()
    await killed.wait()

    second = await fork_server.fork(service("waits", WORD="second"))

    assert first.returncode is None
    await killed_by_us(first, second)


async def test_fork_server_killed_during_a_fork_leaves_a_known_service_or_none(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await fork_server.fork(service("waits", WORD="known"))
    await eventually(lambda: known.pid in children_that_wait())  # it has its name
    killed = fork_server._process
    assert killed is not None
    killed.send_signal(signal.SIGSTOP)  # the request is sent, but nobody reads it
    send = socket.send_fds

    def send_and_kill(*request: Any) -> int:
        sent = send(*request)
        killed.kill()
        return sent

    monkeypatch.setattr(socket, "send_fds", send_and_kill)
    with pytest.raises(OSError, match=r"has ended|Broken pipe"):
        await fork_server.fork(service("waits", WORD="lost"))

    assert children_that_wait() == {known.pid}
    await killed_by_us(known)


def children_that_wait() -> set[int]:
    """Our children of the module `waits`; others, as whole test runs have them, may end meanwhile."""
    found = set()
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if command_line(int(pid))[-1] == "waits":  # a zombie has no command line
                found.add(int(pid))
    return found


async def test_fork_ends_with_a_killed_supervisor(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISES, env=with_modules(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pids = [int(word) for word in (await supervisor.stdout.readline()).split()]
    assert len(pids) == 2

    supervisor.kill()
    await supervisor.wait()
    assert await supervisor.stdout.read() == b""

    for pid in pids:
        await ended(pid)


async def test_fork_keeps_grpc_settings(fork_server: ForkServer) -> None:
    forked = await fork_server.fork(service("tells_grpc"))
    assert await forked.stdout.read() == b"NONE 0\n"
    assert await forked.wait() == 0


async def test_fork_concurrently(fork_server: ForkServer) -> None:
    words = [f"word-{i}" for i in range(8)]
    forked = await asyncio.gather(*(fork_server.fork(service("waits", WORD=word)) for word in words))

    assert [await each.stdout.readline() for each in forked] == [f"{word} True\n".encode() for word in words]
    await killed_by_us(*forked)
