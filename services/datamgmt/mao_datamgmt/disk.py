"""The room where this node writes, and who signs its commits, as `GET /storage` shows it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mao_git.errors import NEARLY_FULL, disk_full, disk_trouble, find_errno, is_full
from mao_shared.models.node import CommitIdentity, Disk, Storage

from .context import Context

MIB = 1 << 20

MIN_FREE_INODES = 1000  # free ones; a commit of a few files takes some dozens


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Free space of a file system. `inodes`: None if it does not count them, as on btrfs."""

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

    For root, only a read-only file system is not writable.
    """
    return DiskSpace.of(os.statvfs(folder), writable=os.access(folder, os.W_OK | os.X_OK))


def disk_spaces(root: Path) -> dict[str, DiskSpace]:
    """Return the space of the data directory (""), and of folders on other file systems. Blocking."""
    found = {"": disk_space(root)}
    own = root.stat().st_dev
    for folder in root.iterdir():
        try:
            if folder.is_dir() and folder.stat().st_dev != own:
                found[folder.name] = disk_space(folder)
        except OSError:  # gone meanwhile, or nobody may look
            continue
    return found


def shortage(room: DiskSpace, reserve: int, needed: int = 0) -> str | None:
    """Return why `needed` bytes cannot be written with `reserve` left free, or None if they can.

    This is the one rule for publishing, for preparing and for what people are shown. The text does not say
    how much is free now: it is compared to see whether the reason is a new one.
    """
    if not room.writable:
        return "it accepts no writes (read-only, or not ours)"
    if room.inodes is not None and room.inodes < MIN_FREE_INODES:
        return f"less than {MIN_FREE_INODES} inodes are free"
    if room.free - needed >= reserve:
        return None
    kept = f"less than {reserve / MIB:.0f} MiB (MAO_MIN_FREE)"
    if needed:
        return f"writing {needed / MIB:.1f} MiB would leave {kept} free"
    return f"{kept} is free"


def nearly_short(room: DiskSpace, reserve: int) -> str | None:
    """Return what is below twice the minimum, although nothing waits for it yet; None if nothing is."""
    if room.inodes is not None and room.inodes < 2 * MIN_FREE_INODES:
        return f"less than {2 * MIN_FREE_INODES} inodes are free"
    if room.free < 2 * reserve:
        return f"less than {2 * reserve / MIB:.0f} MiB is free, twice what has to stay free (MAO_MIN_FREE)"
    return None


def require_room(context: Context, needed: int = 0) -> None:
    """Check that `needed` bytes can be written with MAO_MIN_FREE left free.

    Raises Unavailable: `disk-full`, or `disk-trouble` for a disk that accepts no writes.
    """
    room = disk_space(context.data.root)
    why = shortage(room, context.min_free, needed)
    if why is not None:
        raise disk_full(why) if room.writable else disk_trouble(why)


def caused_by_full_disk(context: Context, error: Exception) -> bool:
    """Return whether an error was caused by a full disk. Blocking.

    libgit2 often gives no reason, or a wrong one, when an object cannot be written for want of space; then
    the space that is left decides. A reason of the system counts as it is.
    """
    if is_full(error) or find_errno(error) is not None:
        return is_full(error)
    free = disk_space(context.data.root).free
    return free < max(context.min_free, NEARLY_FULL)


def describe_storage(context: Context) -> Storage:
    """Return the state of the disk and the author of commits. Blocking."""
    room = disk_space(context.data.root)
    return Storage(
        disk=Disk(
            free=room.free,
            total=room.total,
            writable=room.writable,
            inodes=room.inodes,
            reserve=context.min_free,
            shortage=shortage(room, context.min_free),
        ),
        git=CommitIdentity(name=context.name, email=context.email),
    )
