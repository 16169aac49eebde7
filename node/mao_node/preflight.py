"""Checks before a node starts: its lock, programs, ports, and the folder of its sockets.

The processes of a node communicate over sockets in a folder that only the node's user and root may enter. A
socket's path has at most 107 bytes (`sun_path`) and is part of URLs, which gRPC and etcd parse. So the folder
is `run` in the data directory if possible, otherwise one in /tmp that is named after the data directory.
$XDG_RUNTIME_DIR is not used, since it is removed when the user logs out, while a node in the background keeps
running.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from mao_shared.errors import Conflict, NotFound
from mao_shared.etcd_version import OUTPUT_FILE
from mao_shared.host.data_dir import make_data_dir_private
from mao_shared.host.sockets import loopback_listeners

LOCK = "node.lock"
MAX_PATH = 107  # bytes of a socket's path
MAX_NAME = len("localhost:2379")  # bytes of a socket's name in the folder
PRIVATE = 0o700
STOP_TIMEOUT = 30.0  # seconds for processes of a killed node to stop
POLL_INTERVAL = 0.05  # seconds
FALLBACK = Path("/tmp")  # noqa: S108 (existing content is checked by `make_socket_dir`)
_PLAIN = re.compile(r"[^%#?,\s\x00-\x1f\x7f]+")  # no characters with a meaning in URLs or lists of URLs


def lock(data_dir: Path) -> int:
    """Lock the data directory for this process; return the descriptor that holds the lock.

    Raises Conflict: `node-running` if another process holds it, `data-dir-unusable` if it cannot be created.
    """
    try:
        make_data_dir_private(data_dir)
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Conflict(
            f"The data directory {data_dir} cannot be used: {error.strerror}.",
            code="data-dir-unusable",
            next="Set MAO_DATA_DIR to a folder that this user can write, or change its permissions.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode() or "unknown"
        os.close(descriptor)
        raise Conflict(
            f"A node is already running on {data_dir} (process {holder}).",
            code="node-running",
            next="Stop it with Ctrl-C, or set MAO_DATA_DIR and MAO_GATEWAY_PORT for a second node.",
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def check_ports(ports: Iterable[int]) -> None:
    """Raise Conflict (`port-taken`) if another process listens on one of the ports."""
    for port in ports:
        for listener in loopback_listeners(port):
            listener.close()


def check_program(name: str) -> None:
    """Raise NotFound (`program-missing`) if a program is not on the PATH."""
    if shutil.which(name) is None:
        raise NotFound(
            f"The program {name!r} is not on the PATH.",
            code="program-missing",
            next="Run scripts/machine.sh etcd and start the node by './dev' or 'make node', set MAO_ETCD to"
            " the program, or MAO_ETCD_ENDPOINTS to a running etcd.",
        )


def note_etcd_version(program: str, folder: Path) -> None:
    """Record the version of the installed etcd for the registry, in `folder` (MAO_FEDERATION_DIR).

    An old etcd, or with MAO_ETCD_ENDPOINTS a missing one, only matters when the node joins a federation.
    Raises Conflict (`federation-dir-unusable`).
    """
    if shutil.which(program) is None:
        (folder / OUTPUT_FILE).unlink(missing_ok=True)
        return
    output = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output([program, "--version"], text=True, timeout=10)  # noqa: S603
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / f".new-{OUTPUT_FILE}"
        new.write_text(output)
        new.replace(folder / OUTPUT_FILE)
    except OSError as error:
        raise Conflict(
            f"The folder {folder} cannot be used: {error.strerror}.",
            code="federation-dir-unusable",
            next="Set MAO_FEDERATION_DIR to a folder that belongs to the node's user.",
        ) from error


def socket_dir(data_dir: Path) -> Path:
    """Return the folder for the sockets of the node with this (absolute) data directory. Pure."""
    within = data_dir / "run"
    is_short = len(os.fsencode(within)) + 1 + MAX_NAME <= MAX_PATH
    if is_short and _PLAIN.fullmatch(str(within)):
        return within
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return FALLBACK / f"mao-{os.geteuid()}-{name}"


def make_socket_dir(folder: Path) -> None:
    """Create the folder, or check that an existing one is ours and make it inaccessible to others.

    Raises Conflict (`socket-dir-unusable`) for a symbolic link or another user's folder, or if it cannot be
    created.
    """
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        # By descriptor and without following links, so that the folder that was checked is changed.
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _socket_dir_unusable(folder, f"cannot be used: {error.strerror}") from error
    try:
        status = os.fstat(opened)
        if status.st_uid != os.geteuid():
            raise _socket_dir_unusable(folder, f"belongs to user {status.st_uid}")
        if stat.S_IMODE(status.st_mode) != PRIVATE:
            os.fchmod(opened, PRIVATE)
    finally:
        os.close(opened)


async def wait_until_free(sockets: Sequence[Path]) -> None:
    """Wait until nothing listens on these sockets, since a stopping etcd also removes those of a new one.

    Processes of a killed node may still be stopping. Raises Conflict (`node-ending`) if they do not end.
    """
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            while served := [path for path in sockets if _is_served(path)]:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(POLL_INTERVAL)
    except TimeoutError:
        raise Conflict(
            f"Processes of a killed node are still running: {', '.join(path.name for path in served)}.",
            code="node-ending",
            next=f"Wait, or end them: 'fuser -k {served[0]}' kills the process that listens there.",
        ) from None


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except BlockingIOError:  # a process listens but is busy
            return True
        except OSError:
            return False
        return True


def remove_sockets(folder: Path, sockets: Iterable[Path]) -> None:
    """Remove the sockets of a node that has stopped, and the folder if it is empty."""
    for path in sockets:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _socket_dir_unusable(folder: Path, why: str) -> Conflict:
    return Conflict(
        f"The folder for the node's sockets, {folder}, {why}.",
        code="socket-dir-unusable",
        next=f"Remove it (ls -ld {folder}), or set MAO_DATA_DIR to another folder with a short path.",
    )
