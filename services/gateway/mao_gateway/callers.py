"""Identifies callers on loopback by the kernel: the user, and natively that it is not a container.

A socket belongs to the user who created it. Natively that is not enough: a tool with the privilege `host
network` calls from the same loopback, as root if it runs as root, or with the node's own uid if an ordinary
user runs the node. So the process that holds the socket has to live in the gateway's own pid namespace, which
no container does, and must not be part of the node itself: no part calls the gateway, but one can be made to
by what it talks to (a webhook's receiver; a remote that tells git-lfs where to upload). The process is looked
up in /proc once a connection; if it is not found, a token is needed.

Under compose the gateway is in a container and sees no processes; there the runner starts no step on the
host's network as a user who is admitted (docs/decisions/0017).
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
FIRST_NAMESPACE = "pid:[4026531836]"  # the machine's own; the kernel's fixed number for it
_NODE_MODULES = frozenset(f"mao_{service}".encode() for service in SERVICES)
MAX_KNOWN = 1024  # connections whose process was found


class CallerCheck(Protocol):
    async def admits(self, scope: Scope) -> bool:
        """Return True for a user who needs no token, calling from a process of this machine."""


class LocalCallers:
    """Decides whether a connection needs no token. For the event loop's thread.

    Args:
        users: uids.
        supervisor: pid of the process that has started the services of a native node.
    """

    def __init__(self, users: frozenset[int], *, sees_processes: bool, supervisor: int | None = None) -> None:
        self._users = users
        self._sees_processes = sees_processes
        self._supervisor = supervisor
        self._known: OrderedDict[TcpSocket, None] = OrderedDict()
        self._search = asyncio.Lock()
        self._recent_pids: list[str] = []  # the last caller often calls again

    async def admits(self, scope: Scope) -> bool:
        """Look up the caller's socket, see `CallerCheck`."""
        caller, called = scope.get("client"), scope.get("server")
        if not caller or not called or called[1] is None:
            return False
        found = find_socket((caller[0], caller[1]), (called[0], called[1]))
        if found is None or found.uid not in self._users:
            return False
        if not self._sees_processes or found in self._known:
            return True
        async with self._search:  # one at a time
            local = await asyncio.to_thread(is_local_process, found, self._recent_pids, self._supervisor)
        # If the socket is still there, its process was visible all the time.
        if not local or find_socket((caller[0], caller[1]), (called[0], called[1])) != found:
            return False
        if found.cookie:
            self._known[found] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return True


def is_local_process(
    found: TcpSocket, likely: list[str] | None = None, supervisor: int | None = None
) -> bool:
    """True if a process of the socket's user in our pid namespace holds it, and is no part of the node.

    Blocks some milliseconds. Only root can read another user's descriptors. If the holder is not found, it is
    no container's if no process of one is on our network, which only the machine's own namespace can tell.
    The first process of a container lives as long as the container, so this misses none, however they fork.

    `likely`: pids to look at first; replaced by the one that is found.
    """
    likely = likely if likely is not None else []
    ours = _namespace("self")
    name = f"socket:[{found.inode}]"
    for pid in chain(likely, _pids()):
        if _holds(pid, name):
            likely[:] = [pid]
            users = _status(pid).get("Uid", "").split()  # real, effective, saved, of the file system
            # The socket of a set-uid program belongs to the program's owner; its caller is the real user.
            runs_as_owner = str(found.uid) in users and users[0] in (str(found.uid), "0")
            return _namespace(pid) == ours and runs_as_owner and not _is_service(pid, supervisor)
    if ours != FIRST_NAMESPACE or not _status("1"):
        return False
    return not any(_is_container_on(pid, found) for pid in _pids())


def _pids() -> Iterator[str]:
    """Iterate over pids, the youngest first, since most callers have just started."""
    names = os.listdir(PROC)  # noqa: PTH208 (a Path for each takes its time)
    yield from sorted(filter(str.isdigit, names), key=int, reverse=True)


def _holds(pid: str, name: str) -> bool:
    """True if the process has this open; False also if it is hidden from us or gone."""
    with suppress(OSError), os.scandir(PROC / pid / "fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                if os.readlink(descriptor.path) == name:  # noqa: PTH115 (a Path for each takes its time)
                    return True
    return False


def _namespace(pid: str) -> str | None:
    with suppress(OSError):
        return str((PROC / pid / "ns" / "pid").readlink())
    return None


def _status(pid: str) -> dict[str, str]:
    """Read the process's status; empty if it is gone or hidden from us."""
    with suppress(OSError):
        lines = (PROC / pid / "status").read_text("utf-8", "replace").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def _is_service(pid: str, supervisor: int | None) -> bool:
    """True if the process is a service of this node or was started by one.

    Not all children of the supervisor are: a shell may have left programs before it became the supervisor,
    which as a container's first process is the parent of everything.
    """
    if supervisor is None:
        return False
    while (parent := _status(pid).get("PPid", "0")) not in ("0", str(supervisor)):
        pid = parent
    with suppress(OSError):
        words = (PROC / pid / "cmdline").read_bytes().split(b"\0")
        return parent != "0" and words[1:2] == [b"-m"] and words[2] in _NODE_MODULES
    return False


def _is_container_on(pid: str, found: TcpSocket) -> bool:
    """True if the process is of another pid namespace, such as a container's, on the socket's network."""
    status = _status(pid)
    dead = status.get("State", "").startswith("Z") and status.get("Threads") == "1"
    if len(status.get("NSpid", "").split()) < 2 or dead:
        return False
    try:
        for name in ("tcp", "tcp6"):
            with (PROC / pid / "net" / name).open("rb") as lines:
                next(lines, None)  # the header
                if any(int(line.split()[9]) == found.inode for line in lines):
                    return True
    except OSError:
        return (PROC / pid).exists()
    return False
