"""Reuses the folder of a dataset's last published step for the next step. Blocking.

Writing a hundred thousand files takes far longer than checking that they are unchanged, so a published folder
becomes the next tool's folder, and only files that differ from the branch are written. Nothing but the
published content is passed on: files with other permissions, links or extended attributes are replaced, and
the permissions of folders are reset.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mao_datamgmt.context import Context
from mao_git import CheckoutOptions, Clone, ContentMissing
from mao_shared.errors import MaoError
from mao_shared.host.data_dir import DataDir, Workspace
from mao_shared.logs import get_logger

from . import output, workspaces
from .output import FolderScan, FoundFile, OutputChanges, Rights, Stamp, make_stamp

log = get_logger(__name__)

RECORD = "published.json"
_FOLDER_MODE = 0o755
_FILE_MODES = (0o644, 0o755)
# A tool that ran as another user; a path that is too long since the data directory was moved.
_FOLDER_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTEMPTY})


@dataclass(frozen=True, slots=True)
class RetainedTree:
    """The content of a retained folder: a git tree, the stamps of its files, and paths to replace."""

    tree: str
    files: dict[str, Stamp]
    altered: frozenset[str]


def record_published(
    context: Context,
    workspace: Workspace,
    tree: str,
    changes: OutputChanges,
    altered: frozenset[str] = frozenset(),
) -> None:
    """Record beside a tool's folder that it contains `tree`, except at the paths `altered`.

    Takes time proportional to the changes. On failure, the folder is checked out again the next time.
    """
    try:
        written = {found.path: found for found in changes.written if found.path not in altered}
        reusable = {
            path
            for path, found in written.items()
            if _is_like_checkout(context, workspace.data / path, found)
        }
        document = {
            "tree": tree,
            "files": {path: written[path].stamp for path in reusable},
            "removed": changes.removed,
            "unlike": sorted(altered | (written.keys() - reusable)),
        }
        (workspace.root / RECORD).write_text(json.dumps(document))
    except OSError as error:
        log.warning("worktree.not_kept", folder=str(workspace.root), error=error.strerror)
        with suppress(OSError):
            (workspace.root / RECORD).unlink(missing_ok=True)


def _is_like_checkout(context: Context, path: Path, found: FoundFile) -> bool:
    """True if a file is like one created by a checkout, apart from its content."""
    return (
        found.link is None
        and not found.shared
        and found.rights.mode in _FILE_MODES
        and _is_owned(context, found.rights)
        and not _attributes(path)
    )


def _attributes(path: Path) -> list[str]:
    """Return the extended attributes that a tool may set; others belong to the system."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [name for name in names if name.startswith(("user.", "system.posix_acl"))]


def _is_owned(context: Context, rights: Rights) -> bool:
    if context.owner is None:
        return rights.user == os.geteuid()
    return (rights.user, rights.group) == (context.owner, context.owner)


def retain(data: DataDir, dataset: str, workspace: Workspace) -> None:
    """Keep the workspace of a published step for the next one, or remove it if it cannot be reused."""
    if not (workspace.root / RECORD).is_file():
        workspaces.remove_workspace(workspace)
        return
    workspaces.remove_tree(workspace.input)
    target = data.worktree(dataset)
    target.parent.mkdir(exist_ok=True, mode=0o700)
    workspaces.remove_tree(target)
    workspace.root.rename(target)
    workspaces.remove_workspace(workspace)


def _read(workspace: Workspace) -> RetainedTree | None:
    """Return the content of a retained folder, or None if its records cannot be read."""
    seal = workspaces.read_seal(workspace.root)
    try:
        document = json.loads((workspace.root / RECORD).read_text())
        altered = frozenset(document["unlike"])
        files = dict(seal.files) if seal else {}
        for path, (inode, size, modified, changed) in document["files"].items():
            files[path] = (inode, size, modified, changed)
        for path in (*altered, *document["removed"]):
            files.pop(path, None)
        return None if seal is None else RetainedTree(str(document["tree"]), files, altered)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reuse(context: Context, clone: Clone, commit: str, workspace: Workspace) -> dict[str, Stamp] | None:
    """Update a retained folder to `commit`; return the stamps of its files.

    Returns None for a new workspace, or one that was changed since, which must be checked out entirely.
    """
    retained = _read(workspace)
    (workspace.root / RECORD).unlink(missing_ok=True)
    if retained is None or not clone.has_object(retained.tree):
        return None
    try:
        scanned = output.scan_folder(workspace.data, context.any_size(), retained.files, sys.maxsize)
    except MaoError as error:
        log.warning("worktree.unusable", error=error.detail)
        return None
    if (
        len(scanned.same) != len(retained.files) or not scanned.files.keys() <= retained.altered
    ):  # changed by somebody else
        log.warning("worktree.changed", folder=str(workspace.data))
        return None
    stale = clone.differing_paths(retained.tree, commit) | retained.altered
    files = {path: stamp for path, stamp in retained.files.items() if path not in stale}
    try:
        for path in stale & {*scanned.same, *scanned.files}:
            (workspace.data / path).unlink()
        _tidy_folders(context, workspace.data, scanned, files)
    except OSError as error:
        if error.errno not in _FOLDER_ERRNOS:
            raise
        return None
    try:
        statuses = clone.checkout_paths(commit, workspace.data, stale, CheckoutOptions(owner=context.owner))
    except ContentMissing:
        return None
    return files | {path: make_stamp(status) for path, status in statuses.items()}


def _tidy_folders(context: Context, root: Path, scanned: FolderScan, files: Mapping[str, Stamp]) -> None:
    """Remove folders without files, and reset the owner and mode of the others."""
    nearest = {path.rpartition("/")[0] for path in files}
    needed = (
        nearest | {str(parent) for folder in nearest for parent in PurePosixPath(folder).parents} | {"", "."}
    )
    for path in sorted(scanned.folders, key=len, reverse=True):  # inner ones first
        folder, rights = root / path, scanned.folders[path]
        if path not in needed:
            folder.rmdir()
            continue
        if not _is_owned(context, rights):
            owner = context.owner if context.owner is not None else os.geteuid()
            os.chown(folder, owner, owner, follow_symlinks=False)
        if rights.mode != _FOLDER_MODE:
            folder.chmod(_FOLDER_MODE)
        for name in _attributes(folder):
            os.removexattr(folder, name)
