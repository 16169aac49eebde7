"""Checking out an untrusted tree as plain files.

Only folders and regular files are created, and nothing is written through an existing file. So no name and
no link can lead out of the folder. A link becomes a file with its target as text; a submodule is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from .diff import diff_trees
from .lfs import MARK, uses_lfs
from .objects import open_content, top_tree
from .paths import MAX_DEPTH, is_git_name, unsafe_name
from .repository import Repository, tree_entry

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A name that is too long, twice in one folder, or has characters that the file system does not take.
_NAME_ERRORS = frozenset({errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EILSEQ, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class CheckoutOptions:
    """How files are written: `read_only`, and owned by the user id `owner` (None: by this process's user)."""

    read_only: bool = False
    owner: int | None = None

    def mode(self, executable: bool) -> int:
        """Return the permission bits of a file."""
        writable = 0o555 if self.read_only else 0o755
        return writable if executable else writable & ~0o111


def checkout_tree(
    repo: Repository, tree: str, folder: Path, options: CheckoutOptions
) -> dict[str, os.stat_result]:
    """Write the files of a tree (or commit) into `folder`, which must be empty. Returns path → file status.

    Raises InvalidInput (`dataset-unsafe`) for a name that could lead out of the folder or that the file
    system cannot hold, and ContentMissing for a large file whose content is not here.
    """
    written: dict[str, os.stat_result] = {}
    top = top_tree(repo, tree)
    _write_tree(_Checkout(repo, options, uses_lfs(top)), top, folder, "", written)
    return written


@dataclass(frozen=True, slots=True)
class _Checkout:
    repo: Repository
    options: CheckoutOptions
    with_lfs: bool


def _write_tree(
    to: _Checkout, tree: pygit2.Tree, folder: Path, inside: str, written: dict[str, os.stat_result]
) -> None:
    for entry in tree:
        name = _checked_name(entry, inside)
        if _is_ours(entry, inside + name):
            continue
        try:
            if isinstance(entry, pygit2.Tree):
                make_folder(folder / name, to.options.owner)
            elif isinstance(entry, pygit2.Blob):
                written[inside + name] = _write(to, folder / name, entry)
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                raise unsafe_name(inside + name, f"cannot be written ({error.strerror})") from error
            raise
        if isinstance(entry, pygit2.Tree):
            _write_tree(to, entry, folder / name, f"{inside}{name}/", written)


def _is_ours(entry: pygit2.Object, path: str) -> bool:
    """True for MAO's LFS mark, or a folder with nothing else in it: tools do not see these."""
    folder, _, name = MARK.partition("/")
    if path == folder and isinstance(entry, pygit2.Tree):
        return [child.name for child in entry] == [name]
    return path == MARK


def differing_paths(repo: Repository, old: str, new: str) -> set[str]:
    """Return the paths of the files that differ between two trees (or commits).

    Raises InvalidInput (`dataset-unsafe`) as `checkout_tree` does, for the names in which `new` differs.
    """
    found = diff_trees(top_tree(repo, old), top_tree(repo, new), _checked_name)
    return {
        change.path for change in found if any(isinstance(e, pygit2.Blob) for e in (change.old, change.new))
    }


def checkout_paths(
    repo: Repository, tree: str, folder: Path, paths: Iterable[str], options: CheckoutOptions
) -> dict[str, os.stat_result]:
    """Write those of `paths` that are files in a tree (or commit) into `folder`, which has none of them yet.

    Returns path → file status. Raises as `checkout_tree`.
    """
    top, written = top_tree(repo, tree), {}
    to = _Checkout(repo, options, uses_lfs(top))
    for path in sorted(paths):
        entry = tree_entry(top, path)
        if isinstance(entry, pygit2.Blob) and path != MARK:
            try:
                for parent in reversed((folder / path).relative_to(folder).parents[:-1]):
                    if not (folder / parent).is_dir():
                        make_folder(folder / parent, options.owner)
                written[path] = _write(to, folder / path, entry)
            except OSError as error:
                if error.errno in _NAME_ERRORS:
                    raise unsafe_name(path, f"cannot be written ({error.strerror})") from error
                raise
    return written


def make_folder(path: Path, owner: int | None) -> None:
    """Make a folder that everybody may read and its owner may write to."""
    path.mkdir()
    if owner is not None:
        os.chown(path, owner, owner)
    path.chmod(0o755)  # whatever the umask


def _write(to: _Checkout, path: Path, blob: pygit2.Blob) -> os.stat_result:
    options = to.options
    mode = options.mode(blob.filemode == FileMode.BLOB_EXECUTABLE)
    descriptor = os.open(path, _CREATE, mode)
    try:
        for piece in open_content(to.repo, blob.id, with_lfs=to.with_lfs).pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        if options.owner is not None:
            os.fchown(descriptor, options.owner, options.owner)
        status = os.fstat(descriptor)
        if stat.S_IMODE(status.st_mode) != mode:  # the umask took something away
            os.fchmod(descriptor, mode)
            status = os.fstat(descriptor)
        return status
    finally:
        os.close(descriptor)


def _checked_name(entry: pygit2.Object, inside: str) -> str:
    if inside.count("/") > MAX_DEPTH:
        raise unsafe_name(inside, f"is more than {MAX_DEPTH} folders deep")
    try:
        name = entry.name or ""
        name.encode()
    except UnicodeError:
        raise unsafe_name(inside + "…", "has a name that is not UTF-8") from None
    if name in ("", ".", "..") or "/" in name or "\0" in name or is_git_name(name):
        raise unsafe_name(inside + name, "could leave its folder")
    return name
