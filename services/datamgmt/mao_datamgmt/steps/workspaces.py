"""The folders that tools work in: created whole, sealed, removed, and kept after a failure for a while.

The seal is beside the folders and holds the stamps of all files and the time of the hand-over: a line of
JSON, the paths separated by NUL, four 64-bit numbers a file. A hundred thousand are read much faster than as
JSON.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from mao_git import make_folder
from mao_shared.host.data_dir import DataDir, Workspace

from .output import Baseline, Stamp

SEAL = "handed-over"

_NUMBERS = 4  # in a stamp

_NEW = ".new-"

_MOVED = ".moved-"


class WorkspaceExists(Exception):
    """There is a complete workspace of that name; a tool may be running in it."""


def create(
    target: Workspace,
    owner: int | None,
    fill: Callable[[Workspace], dict[str, Stamp]],
    kept: Path | None = None,
) -> None:
    """Create a workspace: `fill` lays out both folders and returns the stamps of the files under `data`.

    `kept`: the worktree of an earlier step, if there is one, which becomes this workspace; `fill` then
    updates it. The workspace gets its name when it is complete. An existing one is never touched: raises
    WorkspaceExists.
    """
    if target.root.exists():
        raise WorkspaceExists
    parent = target.root.parent
    for folder in (parent.parent, parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # nobody else on this machine looks in
    for left in parent.glob(f"{_NEW}*"):  # a killed process was just preparing another step of this run
        remove_tree(left)
    fresh = Workspace(parent / f"{_NEW}{secrets.token_hex(4)}")
    if kept is not None:
        with suppress(FileNotFoundError):
            kept.rename(fresh.root)
    if not fresh.root.exists():
        fresh.root.mkdir(mode=0o700)
    try:
        if not fresh.data.is_dir():
            make_folder(fresh.data, owner)
        make_folder(fresh.input, None)
        write_seal(fresh.root, fill(fresh))
        try:
            fresh.root.rename(target.root)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise WorkspaceExists from error
            raise
    except BaseException:
        remove_tree(fresh.root)
        raise


def write_seal(root: Path, files: dict[str, Stamp]) -> None:
    """Write the seal: by the file system's clock, later than all changes of the files so far."""
    (root / SEAL).unlink(missing_ok=True)
    names = "\0".join(files).encode()
    with (root / SEAL).open("xb") as file:
        sealed_at = os.fstat(file.fileno()).st_ctime_ns
        head = {"sealed_at": sealed_at, "files": len(files), "names": len(names)}
        file.write(json.dumps(head).encode() + b"\n" + names)
        file.write(array("q", chain.from_iterable(files.values())).tobytes())


def read_seal(root: Path) -> Baseline | None:
    """Return the state at the hand-over, or None if it cannot be read: all files then count as new."""
    try:
        head, _, body = (root / SEAL).read_bytes().partition(b"\n")
        facts = json.loads(head)
        names = body[: facts["names"]].decode().split("\0") if facts["files"] else []
        numbers = array("q", body[facts["names"] :])
        if not len(names) == facts["files"] == len(numbers) / _NUMBERS:
            return None
        inodes, sizes, modified, changed = (numbers[part::_NUMBERS] for part in range(_NUMBERS))
        stamps = zip(inodes, sizes, modified, changed, strict=True)
        return Baseline(dict(zip(names, stamps, strict=True)), int(facts["sealed_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_tree(folder: Path) -> None:
    """Delete a folder and its contents, even where a tool removed permissions; it may be absent."""
    if folder.is_symlink() or not folder.is_dir():
        return
    try:
        shutil.rmtree(folder, onerror=_grant_and_retry)
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENAMETOOLONG):
            raise
        _flatten(folder)
        shutil.rmtree(folder, onerror=_grant_and_retry)


def _flatten(folder: Path) -> None:
    """Move all folders below `folder` directly into it.

    A tool can nest folders deeper than paths, recursion and open files allow.
    """
    todo = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    moved = 0
    while todo:
        outer = folder / todo.pop()
        outer.chmod(0o700)
        for inner in [entry.name for entry in os.scandir(outer) if entry.is_dir(follow_symlinks=False)]:
            (outer / inner).chmod(0o700)
            moved, name = moved + 1, f"{_MOVED}{secrets.token_hex(4)}-{moved}"
            (outer / inner).rename(folder / name)
            todo.append(name)


def _grant_and_retry(call: Callable[[str], object], path: str, _: object) -> None:
    try:
        for place in (os.path.dirname(path), path):  # noqa: PTH120 (called by shutil with a text)
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, 0o700)  # noqa: PTH101 (as above)
        if call in (os.open, os.scandir, os.lstat):
            shutil.rmtree(path)
        else:
            call(path)
    except FileNotFoundError:
        return  # somebody else has removed it


@dataclass(frozen=True, slots=True)
class StoredWorkspace:
    """A run's workspaces on the disk."""

    run: str
    changed_at: datetime


def expired(
    kept: Iterable[StoredWorkspace], active: set[str], now: datetime, age: timedelta, count: int
) -> list[str]:
    """Return the runs whose workspaces are to be removed, oldest first; never those of active runs. Pure."""
    idle = sorted(
        (workspace for workspace in kept if workspace.run not in active),
        key=lambda workspace: workspace.changed_at,
        reverse=True,
    )
    gone = [
        workspace
        for place, workspace in enumerate(idle)
        if place >= count or now - workspace.changed_at > age
    ]
    return [workspace.run for workspace in reversed(gone)]


def list_stored(data: DataDir) -> list[StoredWorkspace]:
    """Return all runs that have workspaces on the disk."""
    parent = data.run_workspaces("x").parent
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        with suppress(FileNotFoundError):  # it has just been removed
            changed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            found.append(StoredWorkspace(folder.name, changed_at))
    return found


def remove_workspace(workspace: Workspace) -> None:
    """Remove one attempt's workspace, and the run's folder if it was the last in it."""
    remove_tree(workspace.root)
    try:
        workspace.root.parent.rmdir()
    except OSError:
        return  # other attempts are kept there
