"""The room where this node writes, and who signs its commits, as `GET /status` tells it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from mao_git import errno_of
from mao_git.errors import NEARLY_FULL, Room, disk_full, disk_trouble, is_full, shortage

from .context import Context


class Disk(BaseModel):
    """Bytes on the file system of the data directory, and whether it takes any.

    `reserve`: what is to stay free (MAO_MIN_FREE); `shortage`: why runs wait for room, None when they do not.
    """

    free: int
    total: int
    writable: bool
    inodes: int | None = None
    reserve: int = 0
    shortage: str | None = None


class Identity(BaseModel):
    """Author of the commits that this node makes."""

    name: str
    email: str


class Storage(BaseModel):
    disk: Disk
    git: Identity


def storage(context: Context) -> Storage:
    """Blocks for as long as statvfs does."""
    room = room_of(context.data.root)
    return Storage(
        disk=Disk(
            free=room.free,
            total=room.total,
            writable=room.writable,
            inodes=room.inodes,
            reserve=context.min_free,
            shortage=shortage(room, context.min_free),
        ),
        git=Identity(name=context.name, email=context.email),
    )


def room_of(folder: Path) -> Room:
    """Blocking. Root writes everywhere but on a file system that is read-only."""
    return Room.of(os.statvfs(folder), writable=os.access(folder, os.W_OK | os.X_OK))


def rooms(root: Path) -> dict[str, Room]:
    """The room of the data directory, and of each folder in it that lies on another file system. Blocking.

    Such a folder is named; the data directory's own name is empty.
    """
    found = {"": room_of(root)}
    own = root.stat().st_dev
    for folder in root.iterdir():
        try:
            if folder.is_dir() and folder.stat().st_dev != own:
                found[folder.name] = room_of(folder)
        except OSError:  # gone meanwhile, or nobody may look
            continue
    return found


def require_room(context: Context, needed: int = 0) -> None:
    """Looks whether `needed` bytes can be written with MAO_MIN_FREE still free.

    Raises Unavailable: `disk-full`, or `disk-trouble` for a disk that takes no writes.
    """
    room = room_of(context.data.root)
    why = shortage(room, context.min_free, needed)
    if why is not None:
        raise disk_full(why) if room.writable else disk_trouble(why)


def met_full_disk(context: Context, error: Exception) -> bool:
    """Whether an error came of a full disk.

    libgit2 often says nothing, or what went wrong before, when an object cannot be written for want of room;
    then the room that is left has to tell. Where the system gave another reason, it is that one.
    """
    if is_full(error) or errno_of(error) is not None:
        return is_full(error)
    free = room_of(context.data.root).free
    return free < max(context.min_free, NEARLY_FULL)
