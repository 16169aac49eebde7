"""Remotes on this machine: their branches, and a push by compare-and-set.

libgit2's own local transport sets the remote's branch without checking whether it has moved since it was
read, so that one of two concurrent pushes is lost. Here objects are copied first, then each branch is moved
under its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ObjectType, RepositoryOpenFlag, SortMode

from mao_git.branches import compare_and_set, conflicting_branches
from mao_git.errors import RemoteMoved
from mao_git.maintenance import lock_age, pushing
from mao_git.objects import check_object, copy_blob
from mao_git.repository import HEADS, Repository
from mao_shared.errors import MaoError, RemoteUnavailable

from .errors import Refusal, at_remote, branch_checked_out, branch_name_taken
from .unsupported import SHALLOW

STALE_LOCK_SECONDS = 60.0  # git holds the lock of a reference for moments only


def push_local(repo: Repository, path: Path, branches: dict[str, str]) -> dict[str, Refusal]:
    """Push branches as `sync.push` does. `path`: the real path of the remote.

    Returns the refused branch, if any; those after it are not tried. Failures of the remote are raised as by
    `errors.at_remote`, those of our clone as they are.
    """
    at = partial(at_remote, repo.url, path)
    with at():
        remote = open_local(path)
        known = {name: remote.references.get(HEADS + name) for name in branches}
        tips = {
            name: None if reference is None else str(reference.target) for name, reference in known.items()
        }
        references = [remote.references[name].resolve() for name in remote.references if name != "HEAD"]
        there = [reference.target for reference in references if isinstance(reference.target, pygit2.Oid)]
        names = list(remote.branches.local)
        checked_out = None if remote.is_bare else remote.references["HEAD"].target
    refused: dict[str, Refusal] = {}
    wanted: dict[str, str] = {}
    for name, new in branches.items():
        if HEADS + name == checked_out:
            refused[name] = branch_checked_out(repo.url, name)
        elif refusal := _refusal(repo, name, new, tips[name], names):
            refused[name] = refusal
        if refused:
            break
        wanted[name] = new
    missing = repo.git.walk(None, SortMode.TOPOLOGICAL | SortMode.REVERSE)  # at the remote; parents first
    for tip in wanted.values():
        missing.push(tip)
    for target in there:
        if target in repo.git:
            missing.hide(target)
    for commit in missing:
        check_object(repo, str(commit.tree_id))
        parent = commit.parents[0].tree if commit.parents else None  # what it has is at the remote already
        copy = _Copy(repo, remote, at)
        _copy_tree(copy, commit.tree, parent)
        copy.write(ObjectType.COMMIT, commit.read_raw())
    moves = {HEADS + name: new for name, new in wanted.items() if tips[name] != new}
    with pushing(repo, Path(remote.path), moves):
        for reference, new in moves.items():
            name = reference.removeprefix(HEADS)
            try:
                with at():
                    moved = compare_and_set(remote, reference, new, tips[name])
            except MaoError as error:  # of this branch only, say for the rights of its folder
                return {name: error}
            if not moved:
                stale = _stale_lock(Path(remote.path), name)
                return {name: stale or RemoteMoved(f"{name} was moved meanwhile, or is locked")}
    return refused


def _stale_lock(path: Path, name: str) -> RemoteUnavailable | None:
    """Return the error for a lock that a killed process left on a branch; None for a lock in use."""
    age = lock_age(path, HEADS + name)
    if age is None or age < STALE_LOCK_SECONDS:
        return None
    lock = path / f"{HEADS}{name}.lock"
    return RemoteUnavailable(
        f"The branch {name} of {path} is locked: a killed process left {lock}.",
        code="remote-locked",
        next=f"Check that no git process uses {path}, then: rm {lock}. The push is retried automatically.",
        remote=str(path),
    )


def open_local(path: Path) -> pygit2.Repository:
    """Open a remote on this machine. Raises pygit2.GitError, also for a shallow repository."""
    git = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
    if git.is_shallow:
        raise pygit2.GitError(SHALLOW)
    return git


def local_branches(path: Path) -> dict[str, str]:
    """Return name → tip of the branches of a repository on this machine. Raises pygit2.GitError."""
    git = open_local(path)
    return {name: str(git.branches.local[name].target) for name in git.branches.local}


def local_default(path: Path) -> str | None:
    """Return the branch that HEAD names, if it exists. Raises pygit2.GitError."""
    git = open_local(path)
    named = git.references["HEAD"].target
    if not isinstance(named, str):  # HEAD is detached: any branch at that commit
        return next((name for name in git.branches.local if git.branches.local[name].target == named), None)
    return named.removeprefix(HEADS) if named in git.references else None


def _refusal(repo: Repository, name: str, new: str, old: str | None, names: list[str]) -> Refusal | None:
    """Return why a branch cannot be moved from `old` to `new` beside the others; None if it can."""
    if old is None:
        others = conflicting_branches(name, names)
        return branch_name_taken(repo.url, name, others) if others else None
    if old != new and (old not in repo.git or not repo.git.descendant_of(new, old)):
        return RemoteMoved(f"{name} has commits that are not here")
    return None


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy from our clone to a remote. `at`: see `objects.Target`."""

    repo: Repository
    target: pygit2.Repository
    at: Callable[[], AbstractContextManager[None]]

    def write(self, kind: ObjectType, data: bytes) -> None:
        with self.at():
            self.target.write(kind, data)


def _copy_tree(copy: _Copy, tree: pygit2.Tree, known: pygit2.Tree | None) -> None:
    if known is not None and known.id == tree.id:
        return
    for entry in tree:
        name = entry.name or ""
        before = known[name] if known is not None and name in known else None
        if before is not None and before.id == entry.id:
            continue
        if isinstance(entry, pygit2.Tree):
            check_object(copy.repo, str(entry.id))
            _copy_tree(copy, entry, before if isinstance(before, pygit2.Tree) else None)
        elif entry.filemode != FileMode.COMMIT:
            copy_blob(copy.repo.git, copy.target, entry.id, copy.at)
    copy.write(ObjectType.TREE, tree.read_raw())
