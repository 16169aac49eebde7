"""Who calls on loopback, as the kernel knows it: the user, and natively that it is no container.

A socket belongs to the user who made it. That is not enough natively: a tool that was agreed `host network`
calls from the same loopback, as root where it runs as root, or under the node's own uid where an ordinary
user runs the node. So the process that holds the socket has to live in the gateway's own pid namespace, which
no container does, and must be no part of the node itself: none calls the gateway, but one can be made to by
whom it talks to (a webhook's receiver; a remote, which tells git-lfs where to put things). It is looked for
in /proc once a connection; where it cannot be found, a token is needed.
Under compose the gateway is in a container and sees no processes; there the runner starts no step on the
host's network as a user who is let in (docs/decisions/0017).
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

from mao_shared.host.sockets import TcpSocket, socket_of
from mao_shared.settings import SERVICES

PROC = Path("/proc")
FIRST_NAMESPACE = "pid:[4026531836]"  # the machine's own; the kernel's fixed number for it
_PARTS = frozenset(f"mao_{service}".encode() for service in SERVICES)  # modules that the node runs
REMEMBERED = 1024  # connections whose process was found


class CallerCheck(Protocol):
    async def let_in(self, scope: Scope) -> bool:
        """Whether a user who needs no token calls, from a process of this machine."""


class LocalCallers:
    """Decides whether a connection needs no token. For the event loop's thread.

    `users`: uids. `supervisor`: pid of the process that has started the node's parts, of a native node.
    """

    def __init__(self, users: frozenset[int], *, sees_processes: bool, supervisor: int | None = None) -> None:
        self._users = users
        self._sees_processes = sees_processes
        self._supervisor = supervisor
        self._found: OrderedDict[TcpSocket, None] = OrderedDict()
        self._looking = asyncio.Lock()
        self._likely: list[str] = []  # who called last calls again

    async def let_in(self, scope: Scope) -> bool:
        """As in `WhoCalls`."""
        caller, called = scope.get("client"), scope.get("server")
        if not caller or not called or called[1] is None:
            return False
        found = socket_of((caller[0], caller[1]), (called[0], called[1]))
        if found is None or found.uid not in self._users:
            return False
        if not self._sees_processes or found in self._found:
            return True
        async with self._looking:  # one search at a time, whoever asks
            here = await asyncio.to_thread(is_of_this_machine, found, self._likely, self._supervisor)
        # Still held by its process: so that was there to be seen all the while.
        if not here or socket_of((caller[0], caller[1]), (called[0], called[1])) != found:
            return False
        if found.cookie:
            self._found[found] = None
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return True


def is_of_this_machine(
    found: TcpSocket, likely: list[str] | None = None, supervisor: int | None = None
) -> bool:
    """Whether its own user holds the socket in our own pid namespace, in no part of the node. Blocks some
    milliseconds.

    Another user's descriptors can be read by root alone. Where the holder is not found, it is none of a
    container if no process of one is on our network, which can be seen from the machine's own namespace only.
    The first process of a container lives as long as all of it, so this misses none, however they fork.

    `likely`: processes to look at first; the one that is found takes their place.
    """
    likely = likely if likely is not None else []
    ours = _namespace("self")
    name = f"socket:[{found.inode}]"
    for pid in chain(likely, _pids()):
        if _holds(pid, name):
            likely[:] = [pid]
            return _namespace(pid) == ours and _is_of(pid, found.uid) and not _is_part(pid, supervisor)
    if ours != FIRST_NAMESPACE or not _status("1"):
        return False
    return not any(_is_foreign(pid, found) for pid in _pids())


def _pids() -> Iterator[str]:
    """The youngest first: who calls has mostly just been started."""
    names = os.listdir(PROC)  # noqa: PTH208 (a Path for each takes its time)
    yield from sorted(filter(str.isdigit, names), key=int, reverse=True)


def _holds(pid: str, name: str) -> bool:
    """Whether a process has this open; False where we may not see it, or it has gone."""
    with suppress(OSError), os.scandir(PROC / pid / "fd") as descriptors:
        for each in descriptors:
            with suppress(OSError):
                if os.readlink(each.path) == name:  # noqa: PTH115 (a Path for each takes its time)
                    return True
    return False


def _namespace(pid: str) -> str | None:
    with suppress(OSError):
        return str((PROC / pid / "ns" / "pid").readlink())
    return None


def _status(pid: str) -> dict[str, str]:
    """Empty for one that has gone, and for others' where /proc hides them."""
    with suppress(OSError):
        lines = (PROC / pid / "status").read_text("utf-8", "replace").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def _is_of(pid: str, uid: int) -> bool:
    """Whether this user runs it: not with somebody else's program that is set-uid, who would be another."""
    users = _status(pid).get("Uid", "").split()  # real, effective, saved, of the file system
    return str(uid) in users and users[0] in (str(uid), "0")


def _is_part(pid: str, supervisor: int | None) -> bool:
    """Whether it is a service of this node or was started by one.

    Not all below the supervisor is: a shell may have left programs there before it became the supervisor, and
    where that is a container's first process, it is above all of it.
    """
    if supervisor is None:
        return False
    while (above := _status(pid).get("PPid", "0")) not in ("0", str(supervisor)):
        pid = above
    with suppress(OSError):
        words = (PROC / pid / "cmdline").read_bytes().split(b"\0")
        return above != "0" and words[1:2] == [b"-m"] and words[2] in _PARTS
    return False


def _is_foreign(pid: str, found: TcpSocket) -> bool:
    """Whether a process of another pid namespace, as containers have them, is on the socket's network."""
    status = _status(pid)
    dead = status.get("State", "").startswith("Z") and status.get("Threads") == "1"
    if len(status.get("NSpid", "").split()) < 2 or dead:
        return False
    try:
        return any(found.inode in _inodes(PROC / pid / "net" / name) for name in ("tcp", "tcp6"))
    except OSError:
        return (PROC / pid).exists()


def _inodes(table: Path) -> Iterator[int]:
    with table.open("rb") as lines:
        next(lines, None)
        for line in lines:
            yield int(line.split()[9])
