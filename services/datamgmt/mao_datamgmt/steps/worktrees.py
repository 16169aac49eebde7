"""The folder of a dataset's last published step, reused for the next one. Blocking.

Laying out a hundred thousand files costs far more than checking that they are unchanged, so what a tool left
and was published becomes the next tool's folder: only what differs from the branch is written. Nothing
but the published content passes on: files with other rights, links or extra attributes than ours are
replaced, and folders get our rights again.
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
# A tool that was another user by agreement; a path that has become too long, as the data directory was moved.
_OF_THE_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTEMPTY})


@dataclass(frozen=True, slots=True)
class RetainedTree:
    """The content of a retained folder: `tree`, and its files' stamps. `unlike`: paths to replace."""

    tree: str
    files: dict[str, Stamp]
    unlike: frozenset[str]


def record_published(
    context: Context,
    workspace: Workspace,
    tree: str,
    changes: OutputChanges,
    unlike: frozenset[str] = frozenset(),
) -> None:
    """Record beside a tool's folder that it holds `tree`, except for the paths `unlike`.

    Proportional to what the tool changed. If that fails, the folder is checked out again next time.
    """
    try:
        written = {found.path: found for found in changes.written if found.path not in unlike}
        ours = {
            path
            for path, found in written.items()
            if _is_as_checked_out(context, workspace.data / path, found)
        }
        document = {
            "tree": tree,
            "files": {path: written[path].stamp for path in ours},
            "removed": changes.removed,
            "unlike": sorted(unlike | (written.keys() - ours)),
        }
        (workspace.root / RECORD).write_text(json.dumps(document))
    except OSError as error:
        log.warning("worktree.not_kept", folder=str(workspace.root), error=error.strerror)
        with suppress(OSError):
            (workspace.root / RECORD).unlink(missing_ok=True)


def _is_as_checked_out(context: Context, path: Path, found: FoundFile) -> bool:
    """Return whether a file is as a checkout would create it, apart from its content."""
    return (
        found.link is None
        and not found.shared
        and found.rights.mode in _FILE_MODES
        and _is_owned(context, found.rights)
        and not _attributes(path)
    )


def _attributes(path: Path) -> list[str]:
    """Return the extra attributes that a tool may set; others belong to the system."""
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
    """Keep the workspace of a published step for the next step, or remove it."""
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
    sealed = workspaces.read_seal(workspace.root)
    try:
        document = json.loads((workspace.root / RECORD).read_text())
        unlike = frozenset(document["unlike"])
        files = dict(sealed.files) if sealed else {}
        for path, (inode, size, modified, changed) in document["files"].items():
            files[path] = (inode, size, modified, changed)
        for path in (*unlike, *document["removed"]):
            files.pop(path, None)
        return None if sealed is None else RetainedTree(str(document["tree"]), files, unlike)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reuse(context: Context, clone: Clone, commit: str, workspace: Workspace) -> dict[str, Stamp] | None:
    """Update a retained folder to `commit`; return the stamps of its files.

    None for a fresh workspace, and for one that was changed since: it must be checked out entirely.
    """
    kept = _read(workspace)
    (workspace.root / RECORD).unlink(missing_ok=True)
    if kept is None or not clone.has_object(kept.tree):
        return None
    try:
        seen = output.scan_folder(workspace.data, context.any_size(), kept.files, sys.maxsize)
    except MaoError as error:
        log.warning("worktree.unusable", error=error.detail)
        return None
    if len(seen.same) != len(kept.files) or not seen.files.keys() <= kept.unlike:  # somebody touched it
        log.warning("worktree.changed", folder=str(workspace.data))
        return None
    stale = clone.differing_paths(kept.tree, commit) | kept.unlike
    files = {path: stamp for path, stamp in kept.files.items() if path not in stale}
    try:
        for path in stale & {*seen.same, *seen.files}:
            (workspace.data / path).unlink()
        _tidy_folders(context, workspace.data, seen, files)
    except OSError as error:
        if error.errno not in _OF_THE_FOLDER:
            raise
        return None
    try:
        statuses = clone.checkout_paths(commit, workspace.data, stale, CheckoutOptions(owner=context.owner))
    except ContentMissing:
        return None
    return files | {path: make_stamp(status) for path, status in statuses.items()}


def _tidy_folders(context: Context, root: Path, seen: FolderScan, files: Mapping[str, Stamp]) -> None:
    """Remove folders without files, and give the others our owner and mode."""
    nearest = {path.rpartition("/")[0] for path in files}
    needed = (
        nearest | {str(above) for folder in nearest for above in PurePosixPath(folder).parents} | {"", "."}
    )
    for path in sorted(seen.folders, key=len, reverse=True):  # inner ones first
        folder, rights = root / path, seen.folders[path]
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
