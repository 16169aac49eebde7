"""Finds the data directory's path on the engine's host, and sets the owner of a step's workspace.

The engine mounts paths of its host. Outside a container these are the runner's own paths. Inside one, the
runner looks up the mounts of its own container. `MAO_HOSTDIR` (in the original: `hostdir`) overrides both.
The result is checked at start: the engine must see a file that was just created.

A tool runs as the owner of its data, and never as root unless the operator agreed to it. A node that runs
as root creates workspaces owned by root; these are given to an ordinary uid first.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mao_runner.drivers.protocol import Driver, EngineRefused
from mao_shared.errors import MaoError
from mao_shared.models import Privileges

from .spec import ROOT_UID, EngineSocket, parse_user

_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
MARKER = ".mao-hostdir-"


class HostDirInvalid(MaoError):
    """The engine does not see the data directory at the path that was found or configured."""

    default_code = "hostdir-wrong"


@dataclass(frozen=True, slots=True)
class HostPaths:
    """Maps paths under the data directory to the engine's host."""

    data_dir: Path
    host_dir: str

    def host(self, path: Path) -> str:
        return str(PurePosixPath(self.host_dir) / path.relative_to(self.data_dir))


async def find_host_paths(driver: Driver, data_dir: Path, override: str | None) -> HostPaths:
    """Find the host's path of `data_dir`, which must be absolute and exist.

    Raises HostDirInvalid if the engine does not see it, and EngineUnavailable if the engine does not answer.
    """
    host_dir = override or await find_host_path(driver, data_dir)
    paths = HostPaths(data_dir, host_dir)
    marker = data_dir / f"{MARKER}{secrets.token_hex(8)}"
    await asyncio.to_thread(marker.touch)
    try:
        seen = await driver.sees(paths.host(marker), {"mao.hostdir-check": marker.name})
    finally:
        await asyncio.to_thread(marker.unlink, missing_ok=True)
    if not seen:
        how = "as set by MAO_HOSTDIR" if override else "as found from the runner's mounts"
        raise HostDirInvalid(
            f"The engine's host does not have the data directory {data_dir} at {host_dir}, {how}; "
            "tools would use the wrong folders, so no step is started.",
            next="Set MAO_HOSTDIR to the host's path of the data directory and start the runner again; "
            "the engine has to run on the machine that holds it.",
            data_dir=str(data_dir),
            hostdir=host_dir,
        )
    return paths


async def find_engine_socket(driver: Driver, privileges: Privileges) -> EngineSocket | None:
    """Return the engine's socket for a step that was granted it; None for all others.

    Raises EngineRefused (`docker-socket-missing`) if the engine has no socket on this machine.
    """
    if not privileges.docker_socket:
        return None
    scheme, _, rest = driver.address.partition("://")
    path = Path(rest)
    try:
        status = await asyncio.to_thread(path.stat)
    except OSError:
        status = None
    if scheme != "unix" or status is None or not stat.S_ISSOCK(status.st_mode):
        raise EngineRefused(
            f"The step requests the engine's socket, and there is none at {driver.address.removeprefix('unix://')}.",
            code="docker-socket-missing",
            next="Configure the runner to reach the container engine over a socket of this machine "
            "(for Docker: DOCKER_HOST=unix:///path).",
        )
    return EngineSocket(await find_host_path(driver, path), status.st_gid)


async def find_host_path(driver: Driver, path: Path) -> str:
    """Return the host's path of a path that this process sees."""
    for container_id in await asyncio.to_thread(own_container_ids):
        mounts = await driver.mounts(container_id)
        if mounts is not None and (found := map_to_host(path, mounts)) is not None:
            return found
    return str(path)


def map_to_host(path: Path, mounts: Mapping[str, str]) -> str | None:
    """Map a container's path to the host by the deepest mount that contains it; None without one (pure)."""
    holding = [target for target in mounts if path.is_relative_to(target)]
    if not holding:
        return None
    target = max(holding, key=lambda mount: len(PurePosixPath(mount).parts))
    return str(PurePosixPath(mounts[target]) / path.relative_to(target))


def own_container_ids(proc: Path = Path("/proc/self"), hostname: str | None = None) -> list[str]:
    """Return candidates for the id of this process's container, likeliest first; none outside a container."""
    ids: list[str] = []
    for name in ("mountinfo", "cgroup"):
        try:
            ids += parse_container_ids((proc / name).read_text().splitlines())
        except OSError:
            continue
    if Path("/.dockerenv").exists():
        ids.append(hostname or socket.gethostname())  # the short id, unless the host name was changed
    return list(dict.fromkeys(ids))


def parse_container_ids(lines: Iterable[str]) -> list[str]:
    """Return the ids of this process's own container in lines of mountinfo or cgroup (pure).

    The engine mounts the container's hostname and hosts files from a folder named after its id.
    """
    own = (line for line in lines if "/containers/" in line or "docker" in line or "kubepods" in line)
    return [match[0] for line in own for match in _CONTAINER_ID.finditer(line)]


def assign_owner(data: Path, tool_uid: int, wanted: str | None = None) -> str:
    """Return the `uid:gid` that a tool runs as; change the owner of its data folder where necessary.

    `wanted` is `root`, a `uid` or `uid:gid` that the operator agreed to. Blocks, long for a large folder.
    Raises OSError.
    """
    status = data.stat()
    uid, gid = parse_user(wanted) or (status.st_uid or tool_uid, status.st_gid or status.st_uid or tool_uid)
    if os.geteuid() == ROOT_UID and (status.st_uid, status.st_gid) != (uid, gid) and uid != ROOT_UID:
        for _, folders, files, at in os.fwalk(data, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
        os.chown(data, uid, gid)  # last, so that after a kill all of it is done again
    return f"{uid}:{gid}"
