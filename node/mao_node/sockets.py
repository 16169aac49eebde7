"""The folder of the sockets over which a node's parts talk: nobody but the node's own user and root gets in.

A socket's path may be 107 bytes long (`sun_path`), and stands in URLs, which gRPC and etcd take apart. So the
folder is `run` in the data directory where that fits, otherwise one in /tmp that is named after the data
directory. Not in $XDG_RUNTIME_DIR: that goes when its user logs out, while a node in the background goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from mao_shared.errors import Conflict

LONGEST_PATH = 107  # bytes of a socket's path
LONGEST_NAME = len("localhost:2379")  # of a socket in the folder
_PLAIN = re.compile(r"[^%#?,\s\x00-\x1f\x7f]+")  # what means nothing else in a URL or a list of them
PRIVATE = 0o700
STOP_LIMIT = 30.0  # seconds that parts of a killed node may take to stop
BETWEEN_LOOKS = 0.05  # seconds
ELSEWHERE = Path("/tmp")  # noqa: S108 (what lies there already is checked by `make_private`)


def socket_dir(data_dir: Path) -> Path:
    """Pure: where the sockets of the node with this (absolute) data directory lie."""
    within = data_dir / "run"
    is_short = len(os.fsencode(within)) + 1 + LONGEST_NAME <= LONGEST_PATH
    if is_short and _PLAIN.fullmatch(str(within)):
        return within
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return ELSEWHERE / f"mao-{os.geteuid()}-{name}"


def make_private(folder: Path) -> None:
    """Makes the folder, or sees to it that the one that is there is ours and closed to others.

    Raises Conflict (`socket-dir-unusable`) for a symbolic link, somebody else's, and where none can be made.
    """
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        # By descriptor, and not through a link: what is checked is what is changed.
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _unusable(folder, f"cannot be used: {error.strerror}") from error
    try:
        found = os.fstat(opened)
        if found.st_uid != os.geteuid():
            raise _unusable(folder, f"belongs to user {found.st_uid}")
        if stat.S_IMODE(found.st_mode) != PRIVATE:
            os.fchmod(opened, PRIVATE)
    finally:
        os.close(opened)


async def until_silent(sockets: Sequence[Path]) -> None:
    """Waits until nothing serves there: as etcd stops, it removes its sockets, be they others' by then.

    Parts of a node that was killed may still be stopping. Raises Conflict (`node-ending`) if they do not end.
    """
    try:
        async with asyncio.timeout(STOP_LIMIT):
            while served := [path for path in sockets if _is_served(path)]:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(BETWEEN_LOOKS)
    except TimeoutError:
        raise Conflict(
            f"Parts of a node that was killed still run: {', '.join(path.name for path in served)}.",
            code="node-ending",
            next=f"Wait, or end them: 'fuser -k {served[0]}' names and ends the one that serves there.",
        ) from None


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except BlockingIOError:  # somebody is there, and busy
            return True
        except OSError:
            return False
        return True


def remove(folder: Path, sockets: Iterable[Path]) -> None:
    """After the node has stopped: the sockets go, and the folder as far as nothing else lies in it."""
    for path in sockets:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _unusable(folder: Path, why: str) -> Conflict:
    return Conflict(
        f"The folder for the node's sockets, {folder}, {why}.",
        code="socket-dir-unusable",
        next=f"Remove it (ls -ld {folder}), or set MAO_DATA_DIR to another folder, with a short path.",
    )
