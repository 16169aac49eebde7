"""What `maoctl doctor` asks of the data manager: room on the disk, and who signs the commits."""

from __future__ import annotations

import os
import shutil

from pydantic import BaseModel

from .context import Context


class Disk(BaseModel):
    """Bytes on the file system of the data directory, and whether it takes any."""

    free: int
    total: int
    writable: bool


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
            free=usage.free, total=usage.total, writable=os.access(context.data.root, os.W_OK | os.X_OK)
        ),
        git=Identity(name=context.name, email=context.email),
    )
