"""Branches: ours, the remote's as last seen, how the two relate, and tips that are kept without a branch.

References of ours besides branches, so that nothing they lead to is lost to packing or a clean-up by git:

    refs/mao/known/<branch>         the tip of the remote's branch that ours was last built upon
    refs/mao/seen/<branch>          the furthest tip of a branch of the remote, kept when the remote loses it
    refs/mao/rescued/<branch>/<at>  what a person's decision left behind
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

_LOCKED = "failed to lock"  # which pygit2 raises as an OSError without a number
KNOWN = "refs/mao/known/"
SEEN = "refs/mao/seen/"
RESCUED = "refs/mao/rescued/"
_STAMP = "%Y%m%dT%H%M%S.%fZ"


class Relation(StrEnum):
    """How a branch of ours relates to the remote's."""

    SAME = "same"
    AHEAD = "ahead"  # ours has commits that it lacks
    BEHIND = "behind"
    DIVERGED = "diverged"


def find_tip(repo: Repository, name: str, *, remote: bool = False) -> str | None:
    """Tip of a branch of ours (or of the remote's, as last seen); None when there is none of that name.

    Raises ObjectBroken for a tip that is broken, before libgit2 reads it (see `objects`).
    """
    full_name = (TRACKED if remote else HEADS) + name
    reference = repo.git.references.get(full_name) if pygit2.reference_is_valid_name(full_name) else None
    if reference is None:
        return None
    tip = str(reference.resolve().target)
    check_object(repo, tip)
    return tip


def list_branches(repo: Repository, *, remote: bool = False) -> dict[str, str]:
    """Names and tips of our branches, or of the remote's as last seen."""
    prefix = TRACKED if remote else HEADS
    names = [name.removeprefix(prefix) for name in repo.git.references if name.startswith(prefix)]
    tips = {name: find_tip(repo, name, remote=remote) for name in sorted(names) if name != "HEAD"}
    return {name: tip for name, tip in tips.items() if tip is not None}


def move_branch(repo: Repository, name: str, new: str, old: str | None) -> bool:
    """Moves a branch of ours from `old` (None: there is none) to `new`; False when it is elsewhere by now."""
    return compare_and_set(repo.git, HEADS + name, new, old)


def reset_to_remote(repo: Repository, name: str) -> None:
    """Sets a branch of ours to the remote's tip, or removes it where the remote has none."""
    theirs = find_tip(repo, name, remote=True)
    if theirs is not None:
        repo.git.references.create(HEADS + name, theirs, force=True)
    elif HEADS + name in repo.git.references:
        repo.git.references.delete(HEADS + name)


class Unpushed(NamedTuple):
    """`commits`: how many the remote was not seen to have; `since`: when the oldest of them was made."""

    commits: int
    since: datetime | None


def unpushed(repo: Repository, name: str) -> Unpushed:
    """The commits of a branch of ours that the remote was not seen to have; proportional to their number."""
    ours, theirs = find_tip(repo, name), find_tip(repo, name, remote=True)
    if ours is None or ours == theirs:
        return Unpushed(0, None)
    walker = repo.git.walk(ours)
    if theirs is not None:
        walker.hide(theirs)
    times = [commit.commit_time for commit in walker]
    return Unpushed(len(times), datetime.fromtimestamp(min(times), UTC) if times else None)


def note_pushed(repo: Repository, name: str, tip: str) -> None:
    """Records that the remote has `tip`, and so no longer a branch that cannot be there beside it."""
    for other in conflicting_branches(name, list_branches(repo, remote=True)):
        repo.git.references.delete(TRACKED + other)
    repo.git.references.create(TRACKED + name, tip, force=True)


def forget_remote(repo: Repository, kept: Container[str]) -> None:
    """Forgets the remote's branches that are not among `kept`."""
    for name in [reference for reference in repo.git.references if reference.startswith(TRACKED)]:
        if name.removeprefix(TRACKED) not in kept:
            repo.git.references.delete(name)


def conflicting_branches(name: str, others: Iterable[str]) -> list[str]:
    """Branches beside which `name` cannot be created, since one would be the other's folder: pure."""
    return sorted(other for other in others if other.startswith(f"{name}/") or name.startswith(f"{other}/"))


def case_variants(name: str, others: Iterable[str]) -> list[str]:
    """Branches that differ from `name` in case only, which some servers take for the same: pure."""
    return sorted(other for other in others if other != name and other.casefold() == name.casefold())


def compare_and_set(git: pygit2.Repository, reference: str, new: str, old: str | None) -> bool:
    """Sets a reference if it is still at `old`; False when it is not, or somebody else is writing it."""
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
    """How commit `ours` relates to commit `theirs`."""
    if ours == theirs:
        return Relation.SAME
    ahead, behind = repo.git.ahead_behind(ours, theirs)
    if not behind:
        return Relation.AHEAD
    return Relation.DIVERGED if ahead else Relation.BEHIND


def latest_tip(repo: Repository, name: str) -> str | None:
    """The tip to read a branch from: ours, or the remote's where that is further or ours does not exist."""
    ours, theirs = find_tip(repo, name), find_tip(repo, name, remote=True)
    if ours is None or theirs is None:
        return ours or theirs
    return theirs if relation(repo, ours, theirs) is Relation.BEHIND else ours


def upstream_base(repo: Repository, branch: str) -> str | None:
    """The last tip of the remote's branch that ours was built upon; None when there was none yet."""
    reference = repo.git.references.get(KNOWN + branch)
    return None if reference is None else str(reference.target)


def set_upstream_base(repo: Repository, branch: str, tip: str) -> None:
    """Records that the remote has `tip`, and that ours contains it."""
    if upstream_base(repo, branch) != tip:
        repo.git.references.create(KNOWN + branch, tip, force=True)


@dataclass(frozen=True, slots=True)
class RewoundBranch:
    """A branch of the remote that lacks commits that it had. `tip`: where it is now; None: it is gone."""

    branch: str
    seen: str
    tip: str | None
    lost: int  # commits up to `seen` that it lacks
    is_earlier: bool  # it is at an earlier state of its own, as after a backup of the server was restored
    kept_as: str  # reference in our clone


def note_seen(repo: Repository, branch: str, tip: str) -> None:
    """Records how far a branch of the remote was seen; a rewound branch does not change that.

    Branches with a '/' belong to no node, and could not all be kept beside each other.
    """
    if "/" in branch:
        return
    reference = repo.git.references.get(SEEN + branch)
    seen = None if reference is None else str(reference.target)
    if seen is None or seen not in repo.git or (seen != tip and contains(repo, tip, seen)):
        repo.git.references.create(SEEN + branch, tip, force=True)


def rewound_branches(repo: Repository) -> list[RewoundBranch]:
    """The branches of the remote that lack, as last fetched, commits that they had before."""
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
    """Accepts a rewound branch as it is now; the reference here that keeps what it had."""
    kept = rescue(repo, back.branch, back.seen, now)
    if back.tip is None:
        repo.git.references.delete(back.kept_as)
    else:
        repo.git.references.create(back.kept_as, back.tip, force=True)
    return kept


def init_upstream_base(repo: Repository, branch: str) -> None:
    """For clones of earlier versions: records what the remote was last seen to have, if ours contains it."""
    if upstream_base(repo, branch) is not None:
        return
    ours, seen = find_tip(repo, branch), find_tip(repo, branch, remote=True)
    if ours is not None and seen is not None and contains(repo, ours, seen):
        set_upstream_base(repo, branch, seen)


def set_remote(repo: Repository, url: str) -> None:
    """Makes `url` the remote, of which nothing is known yet."""
    git = repo.git
    git.remotes.set_url(REMOTE, url)
    for name in list(git.references):
        if name.startswith((TRACKED, KNOWN, SEEN)):
            git.references.delete(name)


def contains(repo: Repository, tip: str, commit: str) -> bool:
    """Whether the history of `tip` has `commit`."""
    return tip == commit or bool(repo.git.descendant_of(tip, commit))


def is_rewritten(repo: Repository, branch: str) -> bool:
    """Whether the remote's branch, as last seen, lacks what it was known to have."""
    known, theirs = upstream_base(repo, branch), find_tip(repo, branch, remote=True)
    return known is not None and theirs is not None and not contains(repo, theirs, known)


def rescue(repo: Repository, branch: str, tip: str, now: datetime) -> str:
    """Keeps `tip` under a reference of its own; its name. A tip is not kept twice."""
    prefix = f"{RESCUED}{branch}/"
    for name in repo.git.references:
        if name.startswith(prefix) and str(repo.git.references[name].target) == tip:
            return name
    name = f"{prefix}{now.astimezone(UTC).strftime(_STAMP)}-{tip[:10]}"
    repo.git.references.create(name, tip, force=False)
    return name


def check_branch_name(name: str) -> None:
    """Raises InvalidInput for what cannot be a branch's name."""
    if not pygit2.reference_is_valid_name(HEADS + name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a branch.", code="ref-invalid", next="Give another name."
        )


def is_checked_out(repo: Repository, name: str) -> bool:
    """Whether a local branch is checked out, in the repository's folder or a worktree."""
    branch = repo.git.branches.local.get(name)
    return branch is not None and not repo.git.is_bare and branch.is_checked_out()
