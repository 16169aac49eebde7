"""Forks services from one process that has imported their common modules, so that they share memory.

Otherwise each of the five interpreters would hold its own copy of the same libraries (figures in
docs/decisions/0006-forked-services.md). The supervisor's `ForkServer` starts `python -m mao_node.fork_server
FD` and sends it one message per service over the socket FD: JSON `{"argv", "module", "env", "parent"}` with
two file descriptors, one for the service's output and one to which the service writes its pid. The server
sends no answer: whenever it is killed, a service has either reported its pid or was never started.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .processes import ProcessSpec, end_with_parent

MAX_LINE = 1 << 20  # bytes of one line of a service's output
MAX_REQUEST = 1 << 18  # bytes; an environment is far smaller
START_TIMEOUT = 30.0  # seconds, including the server's imports before its first fork
PARENT_TIMEOUT = 5.0  # seconds until the kernel makes the supervisor the parent of a service
SHARED = (
    "mao_shared.models",
    "mao_shared.service.app",
    "mao_shared.reconcile",
    "mao_shared.web.dependencies",
    "mao_shared.clients",
    "mao_shared.federation",  # three of the five
    "mao_shared.web.dependencies",
    # Two of the five:
    "cryptography.hazmat.primitives.ciphers",
    "cryptography.hazmat.primitives.hashes",
    "difflib",
    "mao_shared.agreements",
    "mao_shared.git_urls",
    "tarfile",
    # Imported by the above only on first use:
    "anyio._backends._asyncio",
    "httpcore",
    "httpcore._backends.anyio",
    "pydantic.v1",  # by FastAPI
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_ARG_START, _ARG_END = 45, 46  # fields of /proc/self/stat after the command's name


def can_fork() -> bool:
    """True if this system can fork services; elsewhere each is started separately."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class ForkedProcess:
    """A forked service, with the methods of asyncio's Process that the supervisor uses."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        # Processes that it leaves in its session are now our children: kill and reap them.
        with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
            while os.waitpid(-self.pid, 0)[0]:
                pass
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101 (set just before)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


class ForkServer:
    """The client of the fork server, which it starts on demand, and again after it has ended."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    async def fork(self, spec: ProcessSpec) -> ForkedProcess:
        """Start a service. Raises OSError or TimeoutError if the server ends or hangs meanwhile.

        After an error no service runs: the service reports its pid itself, before it starts.
        """
        (output, service_output), (report, service_report) = os.pipe(), os.pipe()
        (lines, output_pipe), (pid, pid_pipe) = await _reader(output), await _reader(report)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                try:
                    await self._request(spec, [service_output, service_report])
                finally:
                    os.close(service_output)
                    os.close(service_report)
                reported = await pid.read()
            if not reported:
                raise ConnectionResetError("the fork server has ended")
            return ForkedProcess(int(reported), lines)
        except BaseException as error:
            output_pipe.close()
            if isinstance(error, TimeoutError):
                await self.close()
            raise
        finally:
            pid_pipe.close()

    async def _request(self, spec: ProcessSpec, descriptors: list[int]) -> None:
        request = {"argv": spec.argv, "module": spec.module, "env": dict(spec.env), "parent": os.getpid()}
        async with self._lock:
            if self._process is not None and self._process.returncode is not None:
                await self.close()
            server = self._socket or await self._start()
            socket.send_fds(server, [json.dumps(request).encode()], descriptors)

    async def _start(self) -> socket.socket:
        client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        with server:
            argv = [*end_with_parent(), sys.executable, "-m", "mao_node.fork_server", str(server.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *argv, env=self._environ, pass_fds=[server.fileno()], start_new_session=True
            )
        self._socket = client
        return client

    async def close(self) -> None:
        """Stop the server; the services that it has forked keep running."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=MAX_LINE)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


def main() -> None:
    """Run the server: fork services until the supervisor closes its end of the socket."""
    from mao_shared.store import load_etcd

    for module in SHARED:
        importlib.import_module(module)
    load_etcd()
    gc.collect()
    gc.freeze()  # so that the collector does not write to shared pages
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while (received := socket.recv_fds(requests, MAX_REQUEST, 2))[0]:
            request, descriptors, *_ = received
            if _fork_orphan():
                requests.close()
                _run_as_service(json.loads(request), *descriptors)
                return
            for descriptor in descriptors:
                os.close(descriptor)


def _fork_orphan() -> bool:
    """Fork twice; return True in the new process, whose parent becomes the supervisor (the subreaper)."""
    if (intermediate := os.fork()) == 0:
        if os.fork() == 0:
            return True
        os._exit(0)
    os.waitpid(intermediate, 0)
    return False


def _run_as_service(request: dict[str, Any], output: int, report: int) -> None:
    """Run the service in this process; return when it has ended."""
    os.setsid()
    # SIGTERM when the supervisor dies. A later change of the parent would cancel that, so wait for it first.
    deadline = time.monotonic() + PARENT_TIMEOUT
    while os.getppid() != request["parent"] and time.monotonic() < deadline:
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != request["parent"]:
        os._exit(1)
    os.write(report, str(os.getpid()).encode())
    os.close(report)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    grpc = {name: value for name, value in os.environ.items() if name.startswith("GRPC_")}
    os.environ.clear()  # except the variables that mao_shared.store set before it imported gRPC
    os.environ.update({**grpc, **request["env"]})
    # Show the service's command line in `ps`, in the space of the server's.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, size = int(fields[_ARG_START]), int(fields[_ARG_END]) - int(fields[_ARG_START])
    text = b"\0".join(word.encode() for word in request["argv"])[: size - 1]
    ctypes.memmove(start, text.ljust(size, b"\0"), size)
    sys.argv = [request["module"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
