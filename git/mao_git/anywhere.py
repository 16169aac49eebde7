"""Any repository of a person's on this machine, as far as voting on it needs."""

from __future__ import annotations

from pathlib import Path

import pygit2

from mao_shared.errors import InvalidInput, NotFound

from .branches import HEADS, compare_and_set
from .clone import TRACKED, Clone


def open_repository(path: Path) -> Clone:
    """Opens the repository that `path` is, or is a folder in, as git finds it. Raises NotFound."""
    try:
        found = pygit2.discover_repository(str(path))
        if found is None:
            raise _no_repository(path, "there is none")
        git = pygit2.Repository(found)
    except (pygit2.GitError, KeyError, ValueError) as error:
        raise _no_repository(path, str(error)) from error
    return Clone(_common_folder(Path(git.path)), "", git)


def _common_folder(folder: Path) -> Path:
    """Where the objects are: a linked worktree's folder names another."""
    named = folder / "commondir"
    return (folder / named.read_text().strip()).resolve() if named.is_file() else folder


def _no_repository(path: Path, why: str) -> NotFound:
    return NotFound(
        f"There is no git repository at {path}: {why}.",
        code="repository-not-found",
        next=f"Check it: git -C {path} status. Give a folder of a repository, or a bare one.",
    )


def find_revision(clone: Clone, text: str) -> str:
    """The commit that git means by `text`: a branch, also of a remote, a tag, a commit's id, `main~2`.

    Raises NotFound, and InvalidInput for what is ambiguous or leads to no commit.
    """
    try:
        return str(clone.git.revparse_single(text).peel(pygit2.Commit).id)
    except KeyError:
        raise _no_revision(clone, text) from None
    except (pygit2.GitError, ValueError, UnicodeError) as error:
        if "too short" in str(error):  # it could be the beginning of an id, which nobody meant
            raise _no_revision(clone, text) from None
        raise InvalidInput(
            f"{text!r} names no commit: {error}.",
            code="ref-invalid",
            next="Give a branch, a tag or a commit's id.",
        ) from error


def _no_revision(clone: Clone, text: str) -> NotFound:
    return NotFound(
        f"The repository has no branch, tag or commit {text!r}.",
        code="ref-not-found",
        next=f"See what there is: git -C {clone.path} branch --all",
    )


def known_tip(clone: Clone, node: str) -> str | None:
    """The tip of a node's branch in any repository: as last seen at the remote, else the local one."""
    for prefix in (TRACKED, HEADS):
        if pygit2.reference_is_valid_name(prefix + node) and (
            found := clone.git.references.get(prefix + node)
        ):
            return str(found.resolve().target)
    return None


def branch_tip(clone: Clone, name: str) -> str | None:
    """The commit of a local branch; None when there is none of that name. Raises InvalidInput for no name."""
    if not pygit2.reference_is_valid_name(HEADS + name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a branch.", code="ref-invalid", next="Give another name."
        )
    reference = clone.git.references.get(HEADS + name)
    return None if reference is None else str(reference.resolve().target)


def checked_out(clone: Clone, name: str) -> bool:
    """Whether somebody works on a local branch: the folder of the repository or of a worktree of it."""
    branch = clone.git.branches.local.get(name)
    return branch is not None and not clone.git.is_bare and branch.is_checked_out()


def set_branch(clone: Clone, name: str, new: str, old: str | None) -> bool:
    """Moves a local branch from `old` (None: it is not there) to `new`; False when it is elsewhere."""
    return compare_and_set(clone.git, HEADS + name, new, old)
