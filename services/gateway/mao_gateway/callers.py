"""Identifies callers on loopback with the kernel's help: their user, and on a native node their process.

A socket belongs to the user who created it. On a native node that is not enough: a tool with the privilege
`host network` calls from the same loopback, possibly as root or with the node's own uid. So the process that
holds the socket must be in the gateway's own pid namespace, which no container is, and must not be a service
of the node: services do not call the gateway, but what they talk to could make them (the receiver of a
webhook; a remote that redirects git-lfs uploads). The process is looked up in /proc once per connection; if
it is not found, a token is needed.

Under compose the gateway is in a container and sees no processes; there the runner starts no step on the
host's network as an admitted user (docs/decisions/0017).
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Protocol

from starlette.types import Scope

from mao_shared.host.sockets import TcpSocket, find_socket
from mao_shared.settings import SERVICES

PROC = Path("/proc")
INITIAL_NAMESPACE = "pid:[4026531836]"  # the machine's pid namespace, a constant of the kernel
_NODE_MODULES = frozenset(f"mao_{service}".encode() for service in SERVICES)
MAX_KNOWN = 1024  # admitted connections that are remembered


class CallerCheck(Protocol):
    async def admits(self, scope: Scope) -> bool:
        """Return True if the caller is an admitted user in a process of this machine."""


class LocalCallers:
    """Admits connections of local users without a token. Not thread-safe.

    Args:
        users: uids of the admitted users.
        sees_processes: True if /proc shows all processes of the machine.
        supervisor: pid of the process that started the services of a native node.
    """

    def __init__(self, users: frozenset[int], *, sees_processes: bool, supervisor: int | None = None) -> None:
        self._users = users
        self._sees_processes = sees_processes
        self._supervisor = supervisor
        self._known: OrderedDict[TcpSocket, None] = OrderedDict()
        self._search = asyncio.Lock()
        self._recent_pids: list[str] = []  # pids tried first, since the last caller often calls again

    async def admits(self, scope: Scope) -> bool:
        """Look up the caller's socket and process; see `CallerCheck`."""
        caller, called = scope.get("client"), scope.get("server")
        if not caller or not called or called[1] is None:
            return False
        tcp_socket = find_socket((caller[0], caller[1]), (called[0], called[1]))
        if tcp_socket is None or tcp_socket.uid not in self._users:
            return False
        if not self._sees_processes or tcp_socket in self._known:
            return True
        async with self._search:  # one at a time
            local = await asyncio.to_thread(is_local_process, tcp_socket, self._recent_pids, self._supervisor)
        # If the socket still exists, its process was visible all the time.
        if not local or find_socket((caller[0], caller[1]), (called[0], called[1])) != tcp_socket:
            return False
        if tcp_socket.cookie:
            self._known[tcp_socket] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return True


def is_local_process(
    tcp_socket: TcpSocket, likely: list[str] | None = None, supervisor: int | None = None
) -> bool:
    """True if a process of the socket's user in our pid namespace holds it, and is no service of the node.

    Only root can read another user's descriptors. If the holder is not found, this returns True only if no
    container is on our network, which can only be seen from the machine's initial namespace. The first
    process of a container lives as long as the container, so none is missed. Blocks for some milliseconds.

    `likely`: pids to try first; replaced by that of the holder.
    """
    likely = likely if likely is not None else []
    ours = _namespace("self")
    name = f"socket:[{tcp_socket.inode}]"
    for pid in chain(likely, _pids()):
        if _holds(pid, name):
            likely[:] = [pid]
            users = _status(pid).get("Uid", "").split()  # real, effective, saved, file system
            # The socket of a set-uid program belongs to the program's owner, but the real user calls.
            runs_as_owner = str(tcp_socket.uid) in users and users[0] in (str(tcp_socket.uid), "0")
            return _namespace(pid) == ours and runs_as_owner and not _is_service(pid, supervisor)
    if ours != INITIAL_NAMESPACE or not _status("1"):
        return False
    return not any(_is_container_on(pid, tcp_socket) for pid in _pids())


def _pids() -> Iterator[str]:
    """Yield all pids, the highest first, since most callers have just started."""
    names = os.listdir(PROC)  # noqa: PTH208 (Path objects are slow here)
    yield from sorted(filter(str.isdigit, names), key=int, reverse=True)


def _holds(pid: str, name: str) -> bool:
    """True if the process has the named file open; False also if it has ended or is not visible."""
    with suppress(OSError), os.scandir(PROC / pid / "fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                if os.readlink(descriptor.path) == name:  # noqa: PTH115 (Path objects are slow here)
                    return True
    return False


def _namespace(pid: str) -> str | None:
    with suppress(OSError):
        return str((PROC / pid / "ns" / "pid").readlink())
    return None


def _status(pid: str) -> dict[str, str]:
    """Read the process's status; empty if it has ended or is not visible."""
    with suppress(OSError):
        lines = (PROC / pid / "status").read_text("utf-8", "replace").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def _is_service(pid: str, supervisor: int | None) -> bool:
    """True if the process is a service of this node or was started by one.

    Other children of the supervisor are no services: a shell that became the supervisor may have started
    programs before, and the first process of a container adopts orphans.
    """
    if supervisor is None:
        return False
    while (parent := _status(pid).get("PPid", "0")) not in ("0", str(supervisor)):
        pid = parent
    with suppress(OSError):
        words = (PROC / pid / "cmdline").read_bytes().split(b"\0")
        return parent != "0" and words[1:2] == [b"-m"] and words[2] in _NODE_MODULES
    return False


def _is_container_on(pid: str, tcp_socket: TcpSocket) -> bool:
    """True if the process is in another pid namespace, such as a container's, and on the socket's network."""
    status = _status(pid)
    dead = status.get("State", "").startswith("Z") and status.get("Threads") == "1"
    if len(status.get("NSpid", "").split()) < 2 or dead:
        return False
    try:
        for name in ("tcp", "tcp6"):
            with (PROC / pid / "net" / name).open("rb") as lines:
                next(lines, None)  # the header
                if any(int(line.split()[9]) == tcp_socket.inode for line in lines):
                    return True
    except OSError:
        return (PROC / pid).exists()
    return False
