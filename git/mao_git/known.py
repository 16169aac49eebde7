"""What the remote was known to have of a branch, and tips that are kept though no branch leads to them.

`known`: of our own branches, what ours was built upon. `seen`: of every branch the furthest tip, kept
here when the remote loses it. `rescued`: what a person's decision left behind. All are references, so that
nothing they lead to can be lost to packing or a later clean-up by git.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from .branches import find_branch
from .clone import REMOTE, TRACKED, Clone

KNOWN = "refs/mao/known/"
SEEN = "refs/mao/seen/"
RESCUED = "refs/mao/rescued/"
_STAMP = "%Y%m%dT%H%M%S.%fZ"


def find_known(clone: Clone, branch: str) -> str | None:
    """The last tip of the remote's branch that ours was built upon; None when there was none yet."""
    reference = clone.git.references.get(KNOWN + branch)
    return None if reference is None else str(reference.target)


def note_known(clone: Clone, branch: str, tip: str) -> None:
    """Remembers that the remote has `tip`, and that ours has it too."""
    if find_known(clone, branch) != tip:
        clone.git.references.create(KNOWN + branch, tip, force=True)


@dataclass(frozen=True, slots=True)
class GoneBack:
    """A branch of the remote that lacks what it had. `tip`: what it is at now; None: it is not there."""

    branch: str
    seen: str
    tip: str | None
    lost: int  # commits up to `seen` that it lacks
    is_earlier: bool  # what it has is a part of what it had, as after a backup was put back
    kept_as: str  # reference in our clone


def note_seen(clone: Clone, branch: str, tip: str) -> None:
    """Remembers how far a branch of the remote was seen; one that went back does not change that.

    Branches with a '/' are none of a node, and could not all be kept beside each other.
    """
    if "/" in branch:
        return
    reference = clone.git.references.get(SEEN + branch)
    seen = None if reference is None else str(reference.target)
    if seen is None or seen not in clone.git or (seen != tip and contains(clone, tip, seen)):
        clone.git.references.create(SEEN + branch, tip, force=True)


def gone_back(clone: Clone) -> list[GoneBack]:
    """The branches of the remote that lack, as last fetched, what they had before."""
    found = []
    for name in [each for each in clone.git.references if each.startswith(SEEN)]:
        branch, seen = name.removeprefix(SEEN), str(clone.git.references[name].target)
        tip = find_branch(clone, branch, remote=True)
        if seen not in clone.git or (tip is not None and contains(clone, tip, seen)):
            continue
        lost = sum(1 for _ in clone.git.walk(seen)) if tip is None else clone.git.ahead_behind(seen, tip)[0]
        found.append(GoneBack(branch, seen, tip, int(lost), tip is None or contains(clone, seen, tip), name))
    return found


def accept_as_seen(clone: Clone, back: GoneBack, now: datetime) -> str:
    """Takes a branch that went back as it is from now on; the reference here that keeps what it had."""
    kept = rescue(clone, back.branch, back.seen, now)
    if back.tip is None:
        clone.git.references.delete(back.kept_as)
    else:
        clone.git.references.create(back.kept_as, back.tip, force=True)
    return kept


def begin_known(clone: Clone, branch: str) -> None:
    """For a clone made before this was kept: what the remote was last seen to have, if ours contains it."""
    if find_known(clone, branch) is not None:
        return
    ours, seen = find_branch(clone, branch), find_branch(clone, branch, remote=True)
    if ours is not None and seen is not None and contains(clone, ours, seen):
        note_known(clone, branch, seen)


def move_remote(clone: Clone, url: str) -> None:
    """Makes `url` the clone's remote, of which nothing is known yet."""
    git = clone.git
    git.remotes.set_url(REMOTE, url)
    for name in list(git.references):
        if name.startswith((TRACKED, KNOWN, SEEN)):
            git.references.delete(name)


def contains(clone: Clone, tip: str, commit: str) -> bool:
    """Whether the history of `tip` has `commit`."""
    return tip == commit or bool(clone.git.descendant_of(tip, commit))


def is_rewritten(clone: Clone, branch: str) -> bool:
    """Whether the remote's branch, as last seen, lacks what it was known to have."""
    known, theirs = find_known(clone, branch), find_branch(clone, branch, remote=True)
    return known is not None and theirs is not None and not contains(clone, theirs, known)


def rescue(clone: Clone, branch: str, tip: str, now: datetime) -> str:
    """Keeps `tip` under a name of its own; that name. A tip that is kept already is not kept twice."""
    prefix = f"{RESCUED}{branch}/"
    for name in clone.git.references:
        if name.startswith(prefix) and str(clone.git.references[name].target) == tip:
            return name
    name = f"{prefix}{now.astimezone(UTC).strftime(_STAMP)}-{tip[:10]}"
    clone.git.references.create(name, tip, force=False)
    return name
