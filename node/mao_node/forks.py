"""The supervisor's side of `template.py`: services forked from one process, so that they share its memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping

from .processes import ProcessSpec, dies_with_us

LONGEST_LINE = 1 << 20  # bytes
ANSWER_SECONDS = 30.0  # the template imports everything before its first answer
_PR_SET_CHILD_SUBREAPER = 36


def can_fork() -> bool:
    """Whether this system has what it takes; elsewhere services are started one by one."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class Forked:
    """A service that the template forked: the part of asyncio's Process that the supervisor uses."""

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
        self._end_orphans()
        self._ended.set()

    def _end_orphans(self) -> None:
        """What the service leaves in its session has become ours to kill and to reap."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
            while os.waitpid(-self.pid, 0)[0]:
                pass

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101 (set just before)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


class Template:
    """Starts the template when it is first needed, and again when it has ended."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._turn = asyncio.Lock()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    async def fork(self, spec: ProcessSpec) -> Forked:
        """Starts a service; raises OSError or TimeoutError when the template ends or hangs over it.

        Either there is a service and its pid is known, or there is none: the pid comes from itself.
        """
        (output, their_output), (hello, their_hello) = os.pipe(), os.pipe()
        (stream, written), (greeting, heard) = await _stream(output), await _stream(hello)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    await self._ask(spec, [their_output, their_hello])
                finally:
                    os.close(their_output)
                    os.close(their_hello)
                said = await greeting.read()
            if not said:
                raise ConnectionResetError("the process that services are forked from has ended")
            return Forked(int(said), stream)
        except BaseException as error:
            written.close()
            if isinstance(error, TimeoutError):
                await self.close()
            raise
        finally:
            heard.close()

    async def _ask(self, spec: ProcessSpec, descriptors: list[int]) -> None:
        request = {"argv": spec.argv, "module": spec.module, "env": dict(spec.env), "parent": os.getpid()}
        async with self._turn:
            if self._process is not None and self._process.returncode is not None:
                await self.close()
            requests = self._socket or await self._start()
            socket.send_fds(requests, [json.dumps(request).encode()], descriptors)

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            argv = [*dies_with_us(), sys.executable, "-m", "mao_node.template", str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *argv, env=self._environ, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._socket = ours
        return ours

    async def close(self) -> None:
        """Ends the template; what it has forked lives on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _stream(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    stream = asyncio.StreamReader(limit=LONGEST_LINE)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    return stream, transport
