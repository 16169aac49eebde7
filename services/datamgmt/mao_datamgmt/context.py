"""The settings of this node that every operation on datasets needs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from mao_git import Author, RemoteAccess, Sign
from mao_git.paths import PATH_MAX
from mao_shared.clock import Clock, SystemClock
from mao_shared.host.data_dir import DataDir

from .settings import DataSettings

# Bytes of the folder names between the root and a tool's files.
_MAX_FOLDERS_LENGTH = len("/workspaces/") + 255 + len("/.new-01234567/data/")


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Limits for the files that a tool writes.

    Sizes are in bytes. Files larger than `lfs_above` are stored with Git LFS, whatever their size; None: no
    file is.

    `path` is the length in bytes of the longest path that this node can create there. A tool can make longer
    ones, since its folder is elsewhere in its container.
    """

    file_size: int
    files: int
    lfs_above: int | None = None
    path: int = PATH_MAX - 1

    def is_for_lfs(self, size: int) -> bool:
        return self.lfs_above is not None and size > self.lfs_above


@dataclass(frozen=True)
class Context:
    """The settings of this node that every operation on datasets needs.

    `owner` is the user id that owns workspaces (None: this process's user). `sign` signs every commit.

    `min_free` is the number of bytes to keep free on the disk.
    """

    node: str
    data: DataDir
    access: RemoteAccess
    name: str
    email: str
    limits: OutputLimits
    owner: int | None = None
    clone_depth: int = 0  # commits that a new clone fetches; 0: all
    min_free: int = 0
    clock: Clock = field(default_factory=SystemClock)
    sign: Sign | None = None

    def any_size(self) -> OutputLimits:
        """Return the limits without sizes, for folders that were already accepted."""
        return replace(self.limits, file_size=sys.maxsize, files=sys.maxsize, path=sys.maxsize)

    def author(self) -> Author:
        """Return the author of a commit made now."""
        return Author(self.name, self.email, self.clock.now(), self.sign)


def longest_path(root: Path) -> int:
    """Return the largest length in bytes of a path in a tool's folder below `root`, for any run id."""
    return PATH_MAX - 1 - len(os.fsencode(root)) - _MAX_FOLDERS_LENGTH


def make_context(settings: DataSettings, clock: Clock | None = None) -> Context:
    data = DataDir(settings.data_dir.absolute())
    return Context(
        node=settings.node,
        data=data,
        access=RemoteAccess(settings.ssh_dir, (data.bare("x").parent, *settings.local_roots())),
        name=settings.git_user or settings.node,
        email=settings.git_email or f"mao@{settings.node}",
        limits=OutputLimits(settings.max_file_size, settings.max_files, path=longest_path(data.root)),
        owner=settings.owner(),
        clone_depth=settings.clone_depth,
        min_free=settings.min_free,
        clock=clock or SystemClock(),
        sign=settings.signer(),
    )
