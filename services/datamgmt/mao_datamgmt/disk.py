"""The free space of the node's disks, and the author of its commits, as `GET /storage` returns them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mao_git.errors import NEARLY_FULL, disk_full, disk_trouble, find_errno, is_full
from mao_shared.models.node import CommitIdentity, Disk, Storage

from .context import Context

MIB = 1 << 20

MIN_FREE_INODES = 1000  # a commit of a few files takes some dozens


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The space of a file system. `inodes` is the number of free ones, None if it does not count them."""

    free: int  # bytes
    total: int  # bytes
    inodes: int | None = None
    writable: bool = True

    @classmethod
    def of(cls, stats: os.statvfs_result, *, writable: bool = True) -> DiskSpace:
        inodes = stats.f_favail if stats.f_files else None
        return cls(stats.f_bavail * stats.f_frsize, stats.f_blocks * stats.f_frsize, inodes, writable)


def disk_space(folder: Path) -> DiskSpace:
    """Return the space of a folder's file system. Blocking.

    For root, a folder is writable unless the file system is read-only.
    """
    return DiskSpace.of(os.statvfs(folder), writable=os.access(folder, os.W_OK | os.X_OK))


def disk_spaces(root: Path) -> dict[str, DiskSpace]:
    """Return the space of the data directory (`""`) and of its folders on other disks. Blocking."""
    found = {"": disk_space(root)}
    own = root.stat().st_dev
    for folder in root.iterdir():
        try:
            if folder.is_dir() and folder.stat().st_dev != own:
                found[folder.name] = disk_space(folder)
        except OSError:  # removed meanwhile, or not accessible
            continue
    return found


def find_shortage(space: DiskSpace, reserve: int, needed: int = 0) -> str | None:
    """Return why `needed` bytes cannot be written with `reserve` bytes left free, or None if they can.

    Publishing, preparing and the conditions all use this rule. The text does not contain
    the free bytes: it is compared to detect a new reason.
    """
    if not space.writable:
        return "it is not writable (read-only, or owned by another user)"
    if space.inodes is not None and space.inodes < MIN_FREE_INODES:
        return f"less than {MIN_FREE_INODES} inodes are free"
    if space.free - needed >= reserve:
        return None
    minimum = f"less than {reserve / MIB:.0f} MiB (MAO_MIN_FREE)"
    if needed:
        return f"writing {needed / MIB:.1f} MiB would leave {minimum} free"
    return f"{minimum} is free"


def find_low_space(space: DiskSpace, reserve: int) -> str | None:
    """Return what is free below twice the minimum, before anything has to wait; None if nothing is."""
    if space.inodes is not None and space.inodes < 2 * MIN_FREE_INODES:
        return f"less than {2 * MIN_FREE_INODES} inodes are free"
    if space.free < 2 * reserve:
        return f"less than {2 * reserve / MIB:.0f} MiB is free, twice the minimum (MAO_MIN_FREE)"
    return None


def require_space(context: Context, needed: int = 0) -> None:
    """Check that `needed` bytes can be written with MAO_MIN_FREE left free.

    Raises Unavailable: `disk-full`, or `disk-trouble` for a disk that is not writable.
    """
    space = disk_space(context.data.root)
    shortage = find_shortage(space, context.min_free, needed)
    if shortage is not None:
        raise disk_full(shortage) if space.writable else disk_trouble(shortage)


def caused_by_full_disk(context: Context, error: Exception) -> bool:
    """True if an error was caused by a full disk. Blocking.

    libgit2 often gives no reason, or a wrong one, when an object cannot be written to a full disk. An error
    number of the system is trusted; without one, the free space decides.
    """
    if is_full(error) or find_errno(error) is not None:
        return is_full(error)
    free = disk_space(context.data.root).free
    return free < max(context.min_free, NEARLY_FULL)


def describe_storage(context: Context) -> Storage:
    """Return the state of the disk and the author of commits. Blocking."""
    space = disk_space(context.data.root)
    return Storage(
        disk=Disk(
            free=space.free,
            total=space.total,
            writable=space.writable,
            inodes=space.inodes,
            reserve=context.min_free,
            shortage=find_shortage(space, context.min_free),
        ),
        git=CommitIdentity(name=context.name, email=context.email),
    )
