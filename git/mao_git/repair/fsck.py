"""Checks a clone: reads all references, and reads and hashes the objects that may exist only here.

libgit2 does not read the whole repository: references are read as text, loose objects by zlib (see
`objects`), and only packs by libgit2, which checks what it reads.
"""

from __future__ import annotations

import re
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryOpenFlag

from mao_git.branches import KNOWN
from mao_git.errors import git_errors
from mao_git.objects import ObjectUnreadable, RawObjects
from mao_git.repository import HEADS, REMOTE, TRACKED

_ID = re.compile(r"(?!0{40})[0-9a-f]{40}")
_HEAD = re.compile(r"ref: refs/\S+|[0-9a-f]{40}")


def read_references(repository: Path) -> dict[str, str | None]:
    """Return name → id of all references; None for a damaged one. Symbolic references are left out."""
    found: dict[str, str | None] = {}
    packed = repository / "packed-refs"
    if packed.exists():
        lines = packed.read_text(errors="replace").splitlines()
        if not lines:
            found["packed-refs"] = None  # git never writes it without a heading
        for line in lines:
            if not line.startswith(("#", "^")):
                oid, _, name = line.partition(" ")
                found[name or "packed-refs"] = oid if name and _ID.fullmatch(oid) else None
    for path in (repository / "refs").rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            text = path.read_text(errors="replace").strip()
            if not text.startswith("ref: "):
                found[str(path.relative_to(repository))] = text if _ID.fullmatch(text) else None
    return found


def shallow_ids(repository: Path) -> set[str]:
    """Return the commits whose parents a shallow clone need not have."""
    path = repository / "shallow"
    return set(path.read_text(errors="replace").split()) if path.is_file() else set()


@git_errors()
def fsck(repository: Path, branch: str) -> str | None:
    """Return what is broken in a clone; None if nothing is.

    Reads all references, all commits, and all content of the branches' tips and of unpushed commits, so
    that it takes as long as reading the dataset. `branch`: this node's, which must exist if the remote was
    known to have it. Raises RepositoryError if the check itself fails.
    """
    for name in ("objects", "refs"):
        if not (repository / name).is_dir():
            return f"its folder {name} is missing"
    try:
        if fault := _fault_of_files(repository):
            return fault
        references = read_references(repository)
    except OSError as error:
        return f"it cannot be read ({error})"
    if damaged := [name for name, oid in references.items() if oid is None]:
        return f"the file {damaged[0]} is empty or damaged"
    if KNOWN + branch in references and HEADS + branch not in references:
        return f"its branch {branch} is missing"
    tips = {oid for oid in references.values() if oid is not None}
    theirs = {oid for name, oid in references.items() if oid is not None and name.startswith(TRACKED)}
    try:
        _check_all(RawObjects(repository), tips, theirs, shallow_ids(repository))
    except ObjectUnreadable as error:
        return f"the object {error}"
    return None


def _fault_of_files(repository: Path) -> str | None:
    try:
        head = (repository / "HEAD").read_text(errors="replace").strip()
    except FileNotFoundError:
        return "its file HEAD is missing"
    if not _HEAD.fullmatch(head):
        return "its file HEAD is damaged"
    try:
        flags = RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH
        return None if pygit2.Repository(str(repository), flags).remotes[REMOTE].url else "it has no remote"
    except KeyError:
        return "its file config names no remote"
    except (pygit2.GitError, ValueError) as error:
        return f"it cannot be opened ({error})"


def _check_all(objects: RawObjects, tips: set[str], theirs: set[str], shallow: set[str]) -> None:
    """Read all commits. `theirs`: tips that the remote has; of commits beyond them all content is read."""
    seen: set[str] = set()
    content: set[str] = set()
    for starts, ours in ((theirs, False), (tips - theirs, True)):
        todo = list(starts)
        while todo:
            oid = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            commit = objects.commit(oid)
            todo += [] if oid in shallow else commit.parents
            for inner, is_blob in objects.below(commit.tree, content) if ours or oid in tips else ():
                if is_blob:
                    objects.check(inner)
