"""What `maoctl doctor` asks of the data manager: room on the disk, and who signs the commits."""

from __future__ import annotations

import os
import shutil

from pydantic import BaseModel

from .context import Context
from .full import NEARLY_FULL, disk_full, is_full, shortage
from .repository import errno_of


class Disk(BaseModel):
    """Bytes on the file system of the data directory, and whether it takes any.

    `reserve`: what is to stay free (MAO_MIN_FREE); `shortage`: why runs wait for room, None when they do not.
    """

    free: int
    total: int
    writable: bool
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
    usage = shutil.disk_usage(context.data.root)
    return Storage(
        disk=Disk(
            free=usage.free,
            total=usage.total,
            writable=os.access(context.data.root, os.W_OK | os.X_OK),
            reserve=context.min_free,
            shortage=shortage(usage.free, context.min_free, 0),
        ),
        git=Identity(name=context.name, email=context.email),
    )


def require_room(context: Context, needed: int = 0) -> None:
    """Raises Unavailable (`disk-full`) unless `needed` bytes can be written with MAO_MIN_FREE still free."""
    why = shortage(shutil.disk_usage(context.data.root).free, context.min_free, needed)
    if why is not None:
        raise disk_full(why)


def met_full_disk(context: Context, error: Exception) -> bool:
    """Whether an error came of a full disk.

    libgit2 often says nothing, or what went wrong before, when an object cannot be written for want of room;
    then the room that is left has to tell. Where the system gave another reason, it is that one.
    """
    if is_full(error) or errno_of(error) is not None:
        return is_full(error)
    free = shutil.disk_usage(context.data.root).free
    return free < max(context.min_free, NEARLY_FULL)
