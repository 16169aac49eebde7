"""Laying a tree out as plain files, whatever the tree says: it may come from anybody.

Nothing but folders and regular files comes about, by creation only (never through what is there), so that no
name and no link can lead out of the folder. A link becomes a file with its target as text; a submodule is
left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from mao_shared.errors import InvalidInput

from .clone import Clone

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_GIT_NAMES = frozenset({".git", "git~1"})


def lay_tree(clone: Clone, tree: str, folder: Path, *, read_only: bool = False) -> int:
    """Writes the files of a tree (or commit) into `folder`, which must be new and empty; their number.

    Raises InvalidInput (`dataset-unsafe`) for a tree with names that could leave the folder.
    """
    modes = (0o444, 0o555) if read_only else (0o644, 0o755)
    return _lay(clone.git, clone.git[tree].peel(pygit2.Tree), folder, modes, "")


def _lay(git: pygit2.Repository, tree: pygit2.Tree, folder: Path, modes: tuple[int, int], inside: str) -> int:
    count = 0
    for entry in tree:
        name = entry.name or ""
        _check_name(name, inside)
        if isinstance(entry, pygit2.Tree):
            (folder / name).mkdir(mode=0o755)
            count += _lay(git, entry, folder / name, modes, f"{inside}{name}/")
        elif isinstance(entry, pygit2.Blob):
            executable = entry.filemode == FileMode.BLOB_EXECUTABLE
            _write(folder / name, entry, modes[1] if executable else modes[0])
            count += 1
    return count


def _write(path: Path, blob: pygit2.Blob, mode: int) -> None:
    descriptor = os.open(path, _CREATE, mode)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor has no path)
        os.fchmod(descriptor, mode)  # whatever the umask
        file.write(blob.data)


def _check_name(name: str, inside: str) -> None:
    plain = name.lower().rstrip(". ").replace("\u200c", "").replace("\u200d", "")
    if name in ("", ".", "..") or "/" in name or "\0" in name or plain in _GIT_NAMES:
        raise InvalidInput(
            f"The dataset holds the name {inside + name!r}, which could leave its folder.",
            code="dataset-unsafe",
            next="Look who pushed it: git log --all -- , and remove it from the branch.",
        )
