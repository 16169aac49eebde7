"""Whose the workspace is: a tool runs as the owner of its data, and that is never root unless agreed.

A node that itself runs as root lays workspaces that root owns; these are given to an ordinary uid first.
Users are numbers here: what a name means is the image's own matter, and it may mean root.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = 0


def claim_data(data: Path, tool_uid: int, wanted: str | None = None) -> str:
    """The `uid:gid` a tool runs as, after the data folder has been given to it where that is needed.

    `wanted`: `root`, a `uid` or `uid:gid` that the operator agreed to. Blocks: a large folder takes a while.
    Raises FileNotFoundError when there is no folder.
    """
    status = data.stat()
    uid, gid = _numeric(wanted) or (status.st_uid or tool_uid, status.st_gid or status.st_uid or tool_uid)
    if os.geteuid() == ROOT and (status.st_uid, status.st_gid) != (uid, gid) and uid != ROOT:
        _give(data, uid, gid)
    return f"{uid}:{gid}"


def is_root(user: str | None) -> bool:
    """Whether a tool's record asks for root."""
    numbers = _numeric(user)
    return numbers is not None and numbers[0] == ROOT


def _numeric(user: str | None) -> tuple[int, int] | None:
    if user is None:
        return None
    uid, _, gid = user.replace("root", "0").partition(":")
    return int(uid), int(gid or uid)


def _give(data: Path, uid: int, gid: int) -> None:
    """The folder itself comes last: after a kill in between it is given again."""
    for _, folders, files, at in os.fwalk(data, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
    os.chown(data, uid, gid)
