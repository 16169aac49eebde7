"""What goes wrong in git on this node, as exceptions; telling a full disk from all other trouble.

Pure: telling a full disk from all other trouble, and what a person is told about it.
"""

from __future__ import annotations

import errno
import os
import re

import pygit2

from mao_shared.errors import (
    Unavailable,
)

_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})

_WORDS = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)

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


def disk_trouble(why: str) -> Unavailable:
    """The node's own disk does not do what it should: to be tried again."""
    return Unavailable(
        f"The node's disk fails: {why}.",
        code="disk-trouble",
        next="See that the data directory is mounted for writing and belongs to the node's user (dmesg may "
        "tell), and that its datasets are in order: maoctl doctor, git fsck.",
    )


_NUMBERS = {
    os.strerror(each): each
    for each in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ENODEV,
        errno.ENOTDIR,
        errno.ENOENT,
    )
}

_RANDOM = re.compile(
    r"_git2_[0-9a-f]+|tmp_obj_[0-9a-f]+|mao-[0-9a-f]{16}|\b[0-9a-f]{2}/[0-9a-f]{38}\b|\b[0-9a-f]{40}\b"
)

TROUBLE = (OSError, pygit2.GitError, KeyError, ValueError)


class MergeConflict(Exception):
    """Two sides changed the same files. `commit` is the one that could not be replayed, if it was one."""

    def __init__(self, paths: list[str], commit: str | None = None) -> None:
        super().__init__(", ".join(paths[:5]))
        self.paths = paths
        self.commit = commit


def errno_of(error: BaseException) -> int | None:
    """The number of what the system said, also where libgit2 gives it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return next((number for words, number in _NUMBERS.items() if words in str(error)), None)


def stable(text: str) -> str:
    """A message without what differs in each try: it is compared to see whether there is anything new."""
    return _RANDOM.sub("…", text)


def branch_busy(branch: str) -> Unavailable:
    """Somebody else moved a branch of ours while we worked on it."""
    return Unavailable(
        f"The branch {branch} was moved by another process while we worked on it.",
        code="branch-busy",
        next="It is tried again. Only one data manager may run on a node.",
    )


class CloneBroken(Unavailable):
    """A clone that cannot be worked with; whoever meets it tries again, since it is made anew."""

    default_code = "clone-broken"

    @classmethod
    def of(cls, dataset: str, why: str) -> CloneBroken:
        return cls(
            f"The clone of dataset {dataset!r} on this node is broken: {why}.",
            next=f"It is set aside and cloned anew by itself; see: maoctl dataset get {dataset}.",
        )


class RemoteMoved(Exception):
    """A push lost the race: the remote's branch has commits that we have not built upon."""


class ContentMissing(Exception):
    """The clone has a pointer whose content is not here; see `bring_content`."""


class LfsConflict(Exception):
    """`path` is in the way of telling git about pointers; the message says why."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path
