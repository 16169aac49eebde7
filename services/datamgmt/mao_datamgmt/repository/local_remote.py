"""A remote on this machine: its branches, and a push by compare-and-set.

libgit2's own local transport sets the remote's branch without looking whether it has moved since it was
read, so that two pushes at once lose one. Here the objects are copied first, then each branch is moved under
its lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ObjectType, RepositoryOpenFlag, SortMode

from mao_shared.errors import Forbidden, RemoteUnavailable

from .branches import HEADS, compare_and_set
from .clone import Clone
from .content import copy_blob
from .errors import RemoteMoved
from .sweep import lock_age, pushing

STALE_LOCK = 60.0  # seconds; git holds the lock of a reference for moments


def push_local(clone: Clone, path: Path, branches: dict[str, str]) -> None:
    """See `remote.push`. Raises pygit2.GitError when there is no repository at `path`."""
    remote = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
    tips = {name: _tip(remote, name) for name in branches}
    _check_moves(clone, remote, branches, tips)
    for commit in _missing_commits(clone, remote, list(branches.values())):
        _copy_commit(clone.git, remote, commit)
    moves = {HEADS + name: new for name, new in branches.items() if tips[name] != new}
    with pushing(clone, Path(remote.path), moves):
        for reference, new in moves.items():
            name = reference.removeprefix(HEADS)
            if not compare_and_set(remote, reference, new, tips[name]):
                raise _lock_left(Path(remote.path), name) or RemoteMoved(f"{name} was moved meanwhile")


def _lock_left(path: Path, name: str) -> RemoteUnavailable | None:
    """What to raise when a branch stays locked by somebody who is gone; None when it was just in use."""
    age = lock_age(path, HEADS + name)
    if age is None or age < STALE_LOCK:
        return None
    lock = path / f"{HEADS}{name}.lock"
    return RemoteUnavailable(
        f"The branch {name} of {path} is locked: a killed writer left {lock}.",
        code="remote-locked",
        next=f"See that no git works in {path}, then: rm {lock}. The push is tried again by itself.",
        remote=str(path),
    )


def local_branches(path: Path) -> dict[str, str]:
    """Names and tips of the branches of a repository on this machine; raises pygit2.GitError."""
    git = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
    return {name: str(git.branches.local[name].target) for name in git.branches.local}


def _tip(remote: pygit2.Repository, name: str) -> str | None:
    reference = remote.references.get(HEADS + name)
    return None if reference is None else str(reference.target)


def _check_moves(
    clone: Clone, remote: pygit2.Repository, branches: dict[str, str], tips: dict[str, str | None]
) -> None:
    checked_out = None if remote.is_bare else remote.references["HEAD"].target
    for name, new in branches.items():
        old = tips[name]
        if HEADS + name == checked_out:
            raise Forbidden(
                f"The branch {name} is checked out in {remote.workdir}, so it cannot be pushed to.",
                code="push-refused",
                next="Use a bare repository: git clone --bare, or 'maoctl dataset init NAME'.",
            )
        if old in (None, new):
            continue
        if old not in clone.git or not clone.git.descendant_of(new, old):
            raise RemoteMoved(f"{name} has commits that are not here")


def _missing_commits(clone: Clone, remote: pygit2.Repository, tips: list[str]) -> Iterator[pygit2.Commit]:
    """Commits that no reference of the remote leads to, parents first."""
    walker = clone.git.walk(None, SortMode.TOPOLOGICAL | SortMode.REVERSE)
    for tip in tips:
        walker.push(tip)
    for name in remote.references:
        target = remote.references[name].resolve().target if name != "HEAD" else None
        if target is not None and target in clone.git:
            walker.hide(target)
    yield from walker


def _copy_commit(source: pygit2.Repository, target: pygit2.Repository, commit: pygit2.Commit) -> None:
    """The commit after all that it holds; what its first parent has as well is there already."""
    parent = commit.parents[0].tree if commit.parents else None
    _copy_tree(source, target, commit.tree, parent)
    target.write(ObjectType.COMMIT, commit.read_raw())


def _copy_tree(
    source: pygit2.Repository, target: pygit2.Repository, tree: pygit2.Tree, known: pygit2.Tree | None
) -> None:
    if known is not None and known.id == tree.id:
        return
    for entry in tree:
        name = entry.name or ""
        before = known[name] if known is not None and name in known else None
        if before is not None and before.id == entry.id:
            continue
        if isinstance(entry, pygit2.Tree):
            _copy_tree(source, target, entry, before if isinstance(before, pygit2.Tree) else None)
        elif entry.filemode != FileMode.COMMIT:
            copy_blob(source, target, entry.id)
    target.write(ObjectType.TREE, tree.read_raw())
