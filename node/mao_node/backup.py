"""`python -m mao_node backup TARGET | restore FILE [--replace]`: backup and restore of a native node.

This module runs the data manager's backup program with the node's settings, and starts etcd for it if the
node is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from mao_shared.errors import Conflict, Forbidden, NotFound, Unavailable

from .preflight import (
    LOCK,
    check_program,
    lock,
    make_socket_dir,
    remove_sockets,
    socket_dir,
    wait_until_free,
)
from .processes import ProcessSpec, end_with_parent, node_processes
from .settings import NodeSettings

PROGRAM = "mao_datamgmt.backup"
START_TIMEOUT = 60.0  # seconds until etcd answers
COMMANDS = {"backup": "take", "restore": "restore"}


async def run_backup(settings: NodeSettings, arguments: Sequence[str]) -> int:
    """Run the backup program; return its exit code.

    Raises Conflict (`node-running` for a restore), Forbidden (`other-user`), NotFound (`no-node-here` for a
    backup), and the errors of `lock`.
    """
    command, *rest = arguments
    owner = _owner(settings.data_dir)
    may_run = os.geteuid() == 0 and command == "backup" and (settings.data_dir / LOCK).exists()
    if owner is not None and not may_run:
        raise _other_user(settings.data_dir, owner, command)
    if command == "backup" and not (settings.data_dir / LOCK).exists():
        raise NotFound(
            f"No node has run in {settings.data_dir}, so there is nothing to back up.",
            code="no-node-here",
            next="Call it in the folder in which the node is started, or with the node's MAO_DATA_DIR.",
        )
    specs = {spec.name: spec for spec in node_processes(settings, os.environ)}
    env = specs["datamgmt"].env
    try:
        lock_descriptor = lock(settings.data_dir)
    except Conflict as error:
        if error.code != "node-running" or command != "backup":
            raise
        return await _run(env, [COMMANDS[command], *rest])
    try:
        if owner is not None:  # root may read from a running node, but not start its etcd, which writes files
            raise _other_user(settings.data_dir, owner, command)
        async with _etcd(settings, specs.get("etcd")):
            return await _run(env, [COMMANDS[command], *rest])
    finally:
        os.close(lock_descriptor)


def _owner(data_dir: Path) -> str | None:
    """Return the user the node runs as (the owner of its files); None if it is this user."""
    uid = os.geteuid()
    for path in (data_dir, data_dir / LOCK):
        with contextlib.suppress(OSError):  # missing or not accessible
            uid = path.stat().st_uid
    if uid == os.geteuid():
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _other_user(data_dir: Path, owner: str, command: str) -> Forbidden:
    return Forbidden(
        f"The node in {data_dir} runs as {owner}, who cannot use files of another user.",
        code="other-user",
        next=f"Run it as that user: sudo -u '{owner}' … maoctl node {command} …",
    )


async def _run(env: Mapping[str, str], arguments: list[str]) -> int:
    argv = [*end_with_parent(), sys.executable, "-m", PROGRAM, *arguments]
    process = await asyncio.create_subprocess_exec(*argv, env=dict(env))
    return await process.wait()


@contextlib.asynccontextmanager
async def _etcd(settings: NodeSettings, spec: ProcessSpec | None) -> AsyncIterator[None]:
    """Run the node's etcd during the block, unless the node uses another etcd."""
    if spec is None:
        yield
        return
    check_program(settings.etcd)
    folder = socket_dir(settings.data_dir)
    make_socket_dir(folder)
    await wait_until_free(spec.sockets)
    for path in spec.sockets:
        path.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *end_with_parent(), *spec.argv, env=dict(spec.env), cwd=spec.cwd, start_new_session=True
    )
    try:
        await _wait_until_served(process, spec)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        remove_sockets(folder, spec.sockets)


async def _wait_until_served(process: asyncio.subprocess.Process, spec: ProcessSpec) -> None:
    """Wait until etcd accepts connections. Raises Unavailable (`etcd-not-started`)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(str(spec.sockets[0]))
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    raise Unavailable(
        "etcd did not start.",
        code="etcd-not-started",
        next="See its messages above; if its data are damaged, move the folder 'etcd' out of the data "
        "directory and restore again.",
    )
