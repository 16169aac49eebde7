"""Pure: telling a full disk from all other trouble, and what a person is told about it."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from mao_shared.errors import Unavailable

_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_WORDS = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
MIB = 1 << 20
NEARLY_FULL = 16 << 20  # bytes that are free when trouble without a reason counts as a full disk
LEAST_INODES = 1000  # free ones; a commit of a few files takes some dozens


def is_full(error: BaseException) -> bool:
    """Whether an error says that a file system has no room; libgit2 gives the reason in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _ERRNO
    return _WORDS.search(str(error)) is not None


def disk_full(why: str) -> Unavailable:
    """To be tried again by whoever was at work: nothing is wrong but the room."""
    return Unavailable(
        f"The node's disk is full: {why}.",
        code="disk-full",
        next="Free space (or inodes) where the data directory lies, or lower MAO_MIN_FREE. "
        "What a tool wrote is kept and is published then, without running the tool again.",
    )


def disk_trouble(why: str) -> Unavailable:
    """The node's own disk does not do what it should: to be tried again."""
    return Unavailable(
        f"The node's disk fails: {why}.",
        code="disk-trouble",
        next="See that the data directory is mounted for writing and belongs to the node's user (dmesg may "
        "tell), and that its datasets are in order: maoctl doctor, git fsck.",
    )


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has free for us. `inodes`: None where it does not count them, as on btrfs."""

    free: int  # bytes
    total: int  # bytes
    inodes: int | None = None
    writable: bool = True

    @classmethod
    def of(cls, told: os.statvfs_result, *, writable: bool = True) -> Room:
        inodes = told.f_favail if told.f_files else None
        return cls(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize, inodes, writable)


def shortage(room: Room, reserve: int, needed: int = 0) -> str | None:
    """Why `needed` bytes cannot be written so that `reserve` stays free; None when they can.

    This is the one rule: for what is published, for what is begun, and for what people are told. The words do
    not tell how much is free now: they are compared to see whether the reason is a new one.
    """
    if not room.writable:
        return "it takes no writes (read-only, or not ours)"
    if room.inodes is not None and room.inodes < LEAST_INODES:
        return f"less than {LEAST_INODES} inodes are free"
    if room.free - needed >= reserve:
        return None
    kept = f"less than {reserve / MIB:.0f} MiB (MAO_MIN_FREE)"
    if needed:
        return f"writing {needed / MIB:.1f} MiB would leave {kept} free"
    return f"{kept} is free"


def nearly_short(room: Room, reserve: int) -> str | None:
    """What is low though nothing waits for it yet: below twice of what would stop the node."""
    if room.inodes is not None and room.inodes < 2 * LEAST_INODES:
        return f"less than {2 * LEAST_INODES} inodes are free"
    if room.free < 2 * reserve:
        return f"less than {2 * reserve / MIB:.0f} MiB is free, twice what has to stay free (MAO_MIN_FREE)"
    return None
