"""What the remote was known to have of a branch, and tips that are kept though no branch leads to them.

Both are references, so that nothing they lead to can be lost to packing or a later clean-up by git.
"""

from __future__ import annotations

from datetime import UTC, datetime

from .branches import find_branch
from .clone import REMOTE, TRACKED, Clone

KNOWN = "refs/mao/known/"
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
        if name.startswith((TRACKED, KNOWN)):
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
