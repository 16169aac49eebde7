"""Branches: ours, the remote's as last fetched, how they relate, and tips kept without a branch.

Our other references keep commits from being removed by packing or git's garbage collection:

    refs/mao/known/<branch>         the tip of the remote's branch on which ours is based
    refs/mao/seen/<branch>          the furthest tip of a branch of the remote, kept when the remote loses it
    refs/mao/rescued/<branch>/<at>  a tip that an operator's decision replaced
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import pygit2

from mao_shared.errors import InvalidInput

from .errors import is_full
from .objects import check_object
from .repository import HEADS, REMOTE, TRACKED, Repository

_LOCKED = "failed to lock"  # pygit2 raises it as an OSError without a number
KNOWN = "refs/mao/known/"
SEEN = "refs/mao/seen/"
RESCUED = "refs/mao/rescued/"
_STAMP = "%Y%m%dT%H%M%S.%fZ"


class Relation(StrEnum):
    """How a branch of ours relates to the remote's."""

    SAME = "same"
    AHEAD = "ahead"  # ours has commits that the remote's lacks
    BEHIND = "behind"
    DIVERGED = "diverged"


def find_tip(repo: Repository, name: str, *, remote: bool = False) -> str | None:
    """Return the tip of our branch (or of the remote's, as last fetched); None if there is none.

    Raises ObjectBroken for a broken tip, before libgit2 reads it (see `objects`).
    """
    full_name = (TRACKED if remote else HEADS) + name
    reference = repo.git.references.get(full_name) if pygit2.reference_is_valid_name(full_name) else None
    if reference is None:
        return None
    tip = str(reference.resolve().target)
    check_object(repo, tip)
    return tip


def list_branches(repo: Repository, *, remote: bool = False) -> dict[str, str]:
    """Return name → tip of our branches, or of the remote's as last fetched."""
    prefix = TRACKED if remote else HEADS
    names = [name.removeprefix(prefix) for name in repo.git.references if name.startswith(prefix)]
    tips = {name: find_tip(repo, name, remote=remote) for name in sorted(names) if name != "HEAD"}
    return {name: tip for name, tip in tips.items() if tip is not None}


def move_branch(repo: Repository, name: str, new: str, old: str | None) -> bool:
    """Move our branch from `old` (None: it does not exist) to `new`. False if it is not at `old` any more."""
    return compare_and_set(repo.git, HEADS + name, new, old)


def reset_to_remote(repo: Repository, name: str) -> None:
    """Set our branch to the remote's tip, or remove it if the remote has no such branch."""
    theirs = find_tip(repo, name, remote=True)
    if theirs is not None:
        repo.git.references.create(HEADS + name, theirs, force=True)
    elif HEADS + name in repo.git.references:
        repo.git.references.delete(HEADS + name)


class Unpushed(NamedTuple):
    """`commits`: number of commits not known to be at the remote; `since`: time of the oldest of them."""

    commits: int
    since: datetime | None


def unpushed(repo: Repository, name: str) -> Unpushed:
    """Count the commits of our branch that are not known to be at the remote. Walks these commits only."""
    ours, theirs = find_tip(repo, name), find_tip(repo, name, remote=True)
    if ours is None or ours == theirs:
        return Unpushed(0, None)
    walker = repo.git.walk(ours)
    if theirs is not None:
        walker.hide(theirs)
    times = [commit.commit_time for commit in walker]
    return Unpushed(len(times), datetime.fromtimestamp(min(times), UTC) if times else None)


def note_pushed(repo: Repository, name: str, tip: str) -> None:
    """Record that the remote's branch is at `tip`, and forget branches that cannot exist beside it."""
    for other in conflicting_branches(name, list_branches(repo, remote=True)):
        repo.git.references.delete(TRACKED + other)
    repo.git.references.create(TRACKED + name, tip, force=True)


def forget_remote(repo: Repository, kept: Container[str]) -> None:
    """Forget the remote's branches that are not in `kept`."""
    for name in [reference for reference in repo.git.references if reference.startswith(TRACKED)]:
        if name.removeprefix(TRACKED) not in kept:
            repo.git.references.delete(name)


def conflicting_branches(name: str, others: Iterable[str]) -> list[str]:
    """Return the branches beside which `name` cannot exist, since one would be the other's folder. Pure."""
    return sorted(other for other in others if other.startswith(f"{name}/") or name.startswith(f"{other}/"))


def case_variants(name: str, others: Iterable[str]) -> list[str]:
    """Return the branches that differ from `name` in case only, as some servers cannot have both. Pure."""
    return sorted(other for other in others if other != name and other.casefold() == name.casefold())


def compare_and_set(git: pygit2.Repository, reference: str, new: str, old: str | None) -> bool:
    """Set a reference if it is still at `old`. False if it is not, or another process holds its lock."""
    try:
        if old is None:
            git.references.create(reference, new, force=False)
            return True
        found = git.references.get(reference)
        if found is None or str(found.target) != old:
            return False
        found.set_target(new)  # libgit2 compares again, under the reference's lock
    except pygit2.AlreadyExistsError:
        return False
    except (pygit2.GitError, OSError) as error:
        if is_full(error) or (isinstance(error, OSError) and _LOCKED not in str(error)):
            raise
        return False
    return True


def relation(repo: Repository, ours: str, theirs: str) -> Relation:
    """Return how commit `ours` relates to commit `theirs`."""
    if ours == theirs:
        return Relation.SAME
    ahead, behind = repo.git.ahead_behind(ours, theirs)
    if not behind:
        return Relation.AHEAD
    return Relation.DIVERGED if ahead else Relation.BEHIND


def latest_tip(repo: Repository, name: str) -> str | None:
    """Return our tip of a branch, or the remote's if it is ahead of ours or ours does not exist."""
    ours, theirs = find_tip(repo, name), find_tip(repo, name, remote=True)
    if ours is None or theirs is None:
        return ours or theirs
    return theirs if relation(repo, ours, theirs) is Relation.BEHIND else ours


def upstream_base(repo: Repository, branch: str) -> str | None:
    """Return the tip of the remote's branch on which ours is based; None if there was none yet."""
    reference = repo.git.references.get(KNOWN + branch)
    return None if reference is None else str(reference.target)


def set_upstream_base(repo: Repository, branch: str, tip: str) -> None:
    """Record that the remote has `tip`, and that our branch contains it."""
    if upstream_base(repo, branch) != tip:
        repo.git.references.create(KNOWN + branch, tip, force=True)


@dataclass(frozen=True, slots=True)
class RewoundBranch:
    """A branch of the remote that lost commits. `seen`: its tip before; `tip`: its tip now, None if gone."""

    branch: str
    seen: str
    tip: str | None
    lost: int  # number of commits up to `seen` that it lacks
    is_earlier: bool  # `tip` is an ancestor of `seen`, as after a restore of the server's backup
    kept_as: str  # reference in our clone


def note_seen(repo: Repository, branch: str, tip: str) -> None:
    """Record the furthest tip of a branch of the remote; a rewound branch does not change it.

    Branches with a '/' belong to no node, and their references could conflict, so they are not recorded.
    """
    if "/" in branch:
        return
    reference = repo.git.references.get(SEEN + branch)
    seen = None if reference is None else str(reference.target)
    if seen is None or seen not in repo.git or (seen != tip and contains(repo, tip, seen)):
        repo.git.references.create(SEEN + branch, tip, force=True)


def rewound_branches(repo: Repository) -> list[RewoundBranch]:
    """List the branches of the remote that lost commits, as last fetched."""
    found = []
    for name in [reference for reference in repo.git.references if reference.startswith(SEEN)]:
        branch, seen = name.removeprefix(SEEN), str(repo.git.references[name].target)
        tip = find_tip(repo, branch, remote=True)
        if seen not in repo.git or (tip is not None and contains(repo, tip, seen)):
            continue
        lost = sum(1 for _ in repo.git.walk(seen)) if tip is None else repo.git.ahead_behind(seen, tip)[0]
        found.append(
            RewoundBranch(branch, seen, tip, int(lost), tip is None or contains(repo, seen, tip), name)
        )
    return found


def accept_rewound(repo: Repository, back: RewoundBranch, now: datetime) -> str:
    """Accept the current tip of a rewound branch. Returns our reference that keeps its old tip."""
    kept = rescue(repo, back.branch, back.seen, now)
    if back.tip is None:
        repo.git.references.delete(back.kept_as)
    else:
        repo.git.references.create(back.kept_as, back.tip, force=True)
    return kept


def init_upstream_base(repo: Repository, branch: str) -> None:
    """Record the remote's last known tip if ours contains it, for clones of earlier versions."""
    if upstream_base(repo, branch) is not None:
        return
    ours, seen = find_tip(repo, branch), find_tip(repo, branch, remote=True)
    if ours is not None and seen is not None and contains(repo, ours, seen):
        set_upstream_base(repo, branch, seen)


def set_remote(repo: Repository, url: str) -> None:
    """Set the URL of the remote, and forget what was known of the old one."""
    git = repo.git
    git.remotes.set_url(REMOTE, url)
    for name in list(git.references):
        if name.startswith((TRACKED, KNOWN, SEEN)):
            git.references.delete(name)


def contains(repo: Repository, tip: str, commit: str) -> bool:
    """True if `commit` is `tip` or an ancestor of it."""
    return tip == commit or bool(repo.git.descendant_of(tip, commit))


def is_rewritten(repo: Repository, branch: str) -> bool:
    """True if the remote's branch, as last fetched, lacks the commit on which ours is based."""
    known, theirs = upstream_base(repo, branch), find_tip(repo, branch, remote=True)
    return known is not None and theirs is not None and not contains(repo, theirs, known)


def rescue(repo: Repository, branch: str, tip: str, now: datetime) -> str:
    """Keep `tip` under a separate reference, once. Returns the reference's name."""
    prefix = f"{RESCUED}{branch}/"
    for name in repo.git.references:
        if name.startswith(prefix) and str(repo.git.references[name].target) == tip:
            return name
    name = f"{prefix}{now.astimezone(UTC).strftime(_STAMP)}-{tip[:10]}"
    repo.git.references.create(name, tip, force=False)
    return name


def check_branch_name(name: str) -> None:
    """Raise InvalidInput for a name that no branch can have."""
    if not pygit2.reference_is_valid_name(HEADS + name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a branch.", code="ref-invalid", next="Give another name."
        )


def is_checked_out(repo: Repository, name: str) -> bool:
    """True if a local branch is checked out, in the repository's folder or in a worktree."""
    branch = repo.git.branches.local.get(name)
    return branch is not None and not repo.git.is_bare and branch.is_checked_out()
