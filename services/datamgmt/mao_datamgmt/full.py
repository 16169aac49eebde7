"""Pure: telling a full disk from all other trouble, and what a person is told about it."""

from __future__ import annotations

import errno
import re

from mao_shared.errors import Unavailable

_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_WORDS = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
MIB = 1 << 20
NEARLY_FULL = 16 << 20  # bytes that are free when trouble without a reason counts as a full disk


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


def shortage(free: int, reserve: int, needed: int) -> str | None:
    """Why `needed` bytes cannot be written so that `reserve` stays free; None when they can.

    The words do not tell how much is free now: they are compared to see whether the reason is a new one.
    """
    if free - needed >= reserve:
        return None
    kept = f"less than {reserve / MIB:.0f} MiB (MAO_MIN_FREE)"
    if needed:
        return f"writing {needed / MIB:.1f} MiB would leave {kept} free"
    return f"{kept} is free"
