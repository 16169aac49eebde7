"""Branches of a clone: its own, those last seen at the remote, and how the two relate."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import UTC, datetime
from enum import StrEnum

import pygit2

from .clone import TRACKED, Clone
from .errors import is_full
from .objects import require_whole

HEADS = "refs/heads/"
_LOCKED = "failed to lock"  # which pygit2 raises as an OSError without a number


class Relation(StrEnum):
    """How a branch of ours stands to the remote's."""

    SAME = "same"
    AHEAD = "ahead"  # we have commits that it lacks
    BEHIND = "behind"
    DIVERGED = "diverged"


def find_branch(clone: Clone, name: str, *, remote: bool = False) -> str | None:
    """Tip of a branch of ours (or of the remote's, as last seen); None when there is none.

    Raises OSError for a tip that is broken, before libgit2 is let at it (see `objects`).
    """
    reference = clone.git.references.get((TRACKED if remote else HEADS) + name)
    if reference is None:
        return None
    tip = str(reference.resolve().target)
    require_whole(clone, tip)
    return tip


def list_branches(clone: Clone, *, remote: bool = False) -> dict[str, str]:
    """Names and tips of our branches, or of the remote's as last seen."""
    prefix = TRACKED if remote else HEADS
    names = [name.removeprefix(prefix) for name in clone.git.references if name.startswith(prefix)]
    tips = {name: find_branch(clone, name, remote=remote) for name in sorted(names) if name != "HEAD"}
    return {name: tip for name, tip in tips.items() if tip is not None}


def move_branch(clone: Clone, name: str, new: str, old: str | None) -> bool:
    """Moves a branch of ours from `old` (None: it is not there) to `new`; False when it is elsewhere."""
    return compare_and_set(clone.git, HEADS + name, new, old)


def take_over_remote(clone: Clone, name: str) -> None:
    """Makes a branch of ours what the remote's is, or removes it where the remote has none."""
    theirs = find_branch(clone, name, remote=True)
    if theirs is not None:
        clone.git.references.create(HEADS + name, theirs, force=True)
    elif HEADS + name in clone.git.references:
        clone.git.references.delete(HEADS + name)


def unpushed(clone: Clone, name: str) -> int:
    """How many commits of a branch of ours the remote was not seen to have."""
    ours, theirs = find_branch(clone, name), find_branch(clone, name, remote=True)
    if ours is None or ours == theirs:
        return 0
    if theirs is not None:
        return int(clone.git.ahead_behind(ours, theirs)[0])
    return sum(1 for _ in clone.git.walk(ours))


def waiting(clone: Clone, name: str) -> tuple[int, datetime | None]:
    """How many commits of a branch of ours the remote was not seen to have, and when the oldest was made."""
    ours, theirs = find_branch(clone, name), find_branch(clone, name, remote=True)
    if ours is None or ours == theirs:
        return 0, None
    walker = clone.git.walk(ours)
    if theirs is not None:
        walker.hide(theirs)
    times = [commit.commit_time for commit in walker]
    return len(times), datetime.fromtimestamp(min(times), UTC) if times else None


def note_pushed(clone: Clone, name: str, tip: str) -> None:
    """Remembers that the remote has `tip`, and so no branch any more that cannot be there beside it."""
    for other in in_the_way(name, list_branches(clone, remote=True)):
        clone.git.references.delete(TRACKED + other)
    clone.git.references.create(TRACKED + name, tip, force=True)


def forget_remote(clone: Clone, kept: Container[str]) -> None:
    """Forgets the remote's branches that are not among `kept`."""
    for name in [each for each in clone.git.references if each.startswith(TRACKED)]:
        if name.removeprefix(TRACKED) not in kept:
            clone.git.references.delete(name)


def in_the_way(name: str, others: Iterable[str]) -> list[str]:
    """Branches beside which `name` cannot be made, since one would be the other's folder: pure."""
    return sorted(each for each in others if each.startswith(f"{name}/") or name.startswith(f"{each}/"))


def alike(name: str, others: Iterable[str]) -> list[str]:
    """Branches that a server which takes no notice of case has in place of `name`: pure."""
    return sorted(each for each in others if each != name and each.casefold() == name.casefold())


def compare_and_set(git: pygit2.Repository, reference: str, new: str, old: str | None) -> bool:
    """Sets a reference if it still is what it was; False when it is not, or somebody is just writing it."""
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


def relation(clone: Clone, ours: str, theirs: str) -> Relation:
    """How commit `ours` stands to commit `theirs`."""
    if ours == theirs:
        return Relation.SAME
    ahead, behind = clone.git.ahead_behind(ours, theirs)
    if not behind:
        return Relation.AHEAD
    return Relation.DIVERGED if ahead else Relation.BEHIND


def settle(clone: Clone, name: str) -> str | None:
    """The tip to read a branch from: ours, or the remote's where that is further or ours is not there."""
    ours, theirs = find_branch(clone, name), find_branch(clone, name, remote=True)
    if ours is None or theirs is None:
        return ours or theirs
    return theirs if relation(clone, ours, theirs) is Relation.BEHIND else ours
