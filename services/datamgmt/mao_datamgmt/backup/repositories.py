"""Copying a repository while it is in use: commits may be made, branches moved, objects packed meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

_TEMPORARY = (".lock", ".new")
_OBJECT = re.compile(r"objects/(?:[0-9a-f]{2}/[0-9a-f]{38,62}|pack/pack-[0-9a-f]+\.[a-z]+|info/[a-z-]+)")
_PASSES = 20  # over the objects; each ends what the packing of a clone began, which is seldom
Copy = Callable[[str, Path], bool]
"""Copies a file under a name; False when it is gone."""


class Restless(OSError):
    """What was to be copied was exchanged meanwhile: begin again."""


def copy_repository(path: Path, name: str, copy: Copy) -> None:
    """Copies all of a repository at one moment or a little later, so that each branch has what it leads to.

    References first and objects last: an object that a reference leads to then lies in some file from the
    first listing to the end, though not always in the same one. Of references the loose ones come before the
    packed ones, since git packs them in that order. Raises Restless when the repository was exchanged.
    """
    before = _identity(path)
    rest = {each for each in _files(path) if not each.startswith("objects/")}
    rest.add("packed-refs")  # which may come to be just when a reference goes
    for each in sorted(rest, key=lambda each: (each.startswith("lfs/"), each == "packed-refs", each)):
        copy(f"{name}/{each}", path / each)
    copied: set[str] = set()
    for _ in range(_PASSES):
        listed = {each for each in _files(path / "objects", "objects/") if _OBJECT.fullmatch(each)}
        for each in sorted(listed - copied):
            if copy(f"{name}/{each}", path / each):
                copied.add(each)
        again = {each for each in _files(path / "objects", "objects/") if _OBJECT.fullmatch(each)}
        if listed <= again and listed <= copied:  # nothing that was there has moved to where we did not look
            break
    else:
        raise Restless(f"the objects of {path} are packed again and again")
    if _identity(path) != before:
        raise Restless(f"{path} was made anew while it was copied")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def refuse_unread(error: OSError) -> None:
    """For `os.walk`, which passes over what it cannot read: a backup says so. What is gone is no trouble."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Paths of what lies below, but for what is just being written."""
    for at, _, names in os.walk(folder, onerror=refuse_unread):
        inside = Path(at).relative_to(folder)
        for name in names:
            if not name.endswith(_TEMPORARY):
                yield prefix + (inside / name).as_posix()
