"""Creates, seals and removes the folders in which tools work; those of failed steps are kept for some time.

The seal is a file beside the folders with the stamps of all files and the time of the hand-over: a line of
JSON, the paths separated by NUL, and four 64-bit numbers per file. This is read much faster than JSON.
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
    """A complete workspace of that name exists; a tool may be running in it."""


def create(
    target: Workspace,
    owner: int | None,
    fill: Callable[[Workspace], dict[str, Stamp]],
    worktree: Path | None = None,
) -> None:
    """Create a workspace: `fill` writes both folders and returns the stamps of the files in `data`.

    `worktree` is that of an earlier step, if any, which becomes this workspace; `fill` then
    updates it. The workspace is renamed to its path when complete. Raises WorkspaceExists if there is one.
    WorkspaceExists.
    """
    if target.root.exists():
        raise WorkspaceExists
    parent = target.root.parent
    for folder in (parent.parent, parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # not readable for other users
    for leftover in parent.glob(
        f"{_NEW}*"
    ):  # of a process that was killed while preparing another step of this run
        remove_tree(leftover)
    new = Workspace(parent / f"{_NEW}{secrets.token_hex(4)}")
    if worktree is not None:
        with suppress(FileNotFoundError):
            worktree.rename(new.root)
    if not new.root.exists():
        new.root.mkdir(mode=0o700)
    try:
        if not new.data.is_dir():
            make_folder(new.data, owner)
        make_folder(new.input, None)
        write_seal(new.root, fill(new))
        try:
            new.root.rename(target.root)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise WorkspaceExists from error
            raise
    except BaseException:
        remove_tree(new.root)
        raise


def write_seal(root: Path, files: dict[str, Stamp]) -> None:
    """Write the seal, which by the file system's clock is later than all changes of the files."""
    (root / SEAL).unlink(missing_ok=True)
    names = "\0".join(files).encode()
    with (root / SEAL).open("xb") as file:
        sealed_at = os.fstat(file.fileno()).st_ctime_ns
        header = {"sealed_at": sealed_at, "files": len(files), "names": len(names)}
        file.write(json.dumps(header).encode() + b"\n" + names)
        file.write(array("q", chain.from_iterable(files.values())).tobytes())


def read_seal(root: Path) -> Baseline | None:
    """Return the state at the hand-over, or None if it cannot be read; all files then count as new."""
    try:
        header, _, body = (root / SEAL).read_bytes().partition(b"\n")
        fields = json.loads(header)
        names = body[: fields["names"]].decode().split("\0") if fields["files"] else []
        numbers = array("q", body[fields["names"] :])
        if not len(names) == fields["files"] == len(numbers) / _NUMBERS:
            return None
        inodes, sizes, modified, changed = (numbers[part::_NUMBERS] for part in range(_NUMBERS))
        stamps = zip(inodes, sizes, modified, changed, strict=True)
        return Baseline(dict(zip(names, stamps, strict=True)), int(fields["sealed_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_tree(folder: Path) -> None:
    """Delete a folder, if it exists, with its contents, even if a tool removed permissions."""
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

    A tool can nest folders deeper than the limits for paths, recursion and open files allow.
    """
    pending = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    moved = 0
    while pending:
        outer = folder / pending.pop()
        outer.chmod(0o700)
        for inner in [entry.name for entry in os.scandir(outer) if entry.is_dir(follow_symlinks=False)]:
            (outer / inner).chmod(0o700)
            moved, name = moved + 1, f"{_MOVED}{secrets.token_hex(4)}-{moved}"
            (outer / inner).rename(folder / name)
            pending.append(name)


def _grant_and_retry(call: Callable[[str], object], path: str, _: object) -> None:
    try:
        for path_to_grant in (os.path.dirname(path), path):  # noqa: PTH120 (called by shutil with a text)
            if stat.S_ISDIR(os.lstat(path_to_grant).st_mode):
                os.chmod(path_to_grant, 0o700)  # noqa: PTH101 (as above)
        if call in (os.open, os.scandir, os.lstat):
            shutil.rmtree(path)
        else:
            call(path)
    except FileNotFoundError:
        return  # it was removed meanwhile


@dataclass(frozen=True, slots=True)
class StoredWorkspace:
    """A run that has workspaces on the disk."""

    run: str
    changed_at: datetime


def expired(
    worktree: Iterable[StoredWorkspace], active: set[str], now: datetime, age: timedelta, count: int
) -> list[str]:
    """Return the runs whose workspaces are to be removed, oldest first; never those of active runs. Pure."""
    idle = sorted(
        (workspace for workspace in worktree if workspace.run not in active),
        key=lambda workspace: workspace.changed_at,
        reverse=True,
    )
    expired_workspaces = [
        workspace
        for path_to_grant, workspace in enumerate(idle)
        if path_to_grant >= count or now - workspace.changed_at > age
    ]
    return [workspace.run for workspace in reversed(expired_workspaces)]


def list_stored(data: DataDir) -> list[StoredWorkspace]:
    """Return all runs that have workspaces on the disk."""
    parent = data.run_workspaces("x").parent
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        with suppress(FileNotFoundError):  # it was removed meanwhile
            changed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            found.append(StoredWorkspace(folder.name, changed_at))
    return found


def remove_workspace(workspace: Workspace) -> None:
    """Remove an attempt's workspace, and the run's folder if that is then empty."""
    remove_tree(workspace.root)
    try:
        workspace.root.parent.rmdir()
    except OSError:
        return  # it contains other attempts
