"""Bringing this node's commits to the remote: follow it, promote to ground truth, push. Blocking.

Nothing is forced: where the remote has moved, our commits are replayed on top of it and pushed again. Where
its branch of this node was rewritten, pushing stops until a person decides (see resolve.py).
"""

from __future__ import annotations

import random
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, MergeConflict, Relation, RemoteMoved
from mao_shared.errors import Conflict, MaoError, RemoteUnavailable
from mao_shared.models import GROUND_TRUTH

ATTEMPTS = 6
PAUSE = 0.05  # seconds before the second try; doubled each time, with jitter


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """The tips of the branches after a push. `failure`: the error, if the remote lacks some of them.

    `observed`: whether the remote has the node's own branch, whatever became of ground truth.
    """

    tip: str
    ground_truth: str | None
    failure: MaoError | None = None
    observed: bool = True

    @property
    def pushed(self) -> bool:
        return self.failure is None


def push_branches(context: Context, clone: Clone, *, promote: bool) -> PushOutcome:
    """Push the node's branch and, with `promote`, its tip as ground truth.

    That the remote is away or refuses is in the answer, not raised; one refused branch does not hold up the
    other. Raises MergeConflict when our commits cannot be replayed onto the remote's.
    """
    failure: MaoError | None = None
    for attempt in range(ATTEMPTS):
        try:
            tips = advance_branches(context, clone, promote=promote)
        except BranchRewritten as rewritten:
            if attempt or _catch_up(context, clone, attempt):  # it may have been put right since it was seen
                return PushOutcome(_tips(context, clone)[context.node], None, rewritten, observed=False)
            continue
        try:
            clone.push(_missing(clone, tips), context.access)
            failure = None
            break
        except RemoteMoved as moved:
            seen = _seen(clone, tips)
            failure = _catch_up(context, clone, attempt)
            if failure is None:
                failure = push_lost(clone, list(tips), moved, was_moved=_seen(clone, tips) != seen)
        except MaoError as error:
            failure = error
            break
    tips = _tips(context, clone)
    observed = failure is None or context.node not in _missing(clone, tips)
    return PushOutcome(tips[context.node], tips.get(GROUND_TRUTH), failure, observed)


def push_lost(clone: Clone, branches: list[str], moved: RemoteMoved, *, was_moved: bool) -> MaoError:
    """Return the error for a rejected push: a lost race, or a branch that the remote does not let us move.

    `was_moved`: a fetch since then has shown that somebody else moved a branch.
    """
    theirs = clone.list_branches(remote=True)
    for name in branches:
        others = mao_git.conflicting_branches(name, theirs) or mao_git.case_variants(name, theirs)
        if others and name not in theirs:
            return mao_git.branch_name_taken(clone.url, name, others)
    if was_moved:
        words = f"Others kept pushing to {clone.url}: {moved}."
    else:
        words = f"{clone.url} does not move a branch although nobody else moved it: {moved}."
    by_hand = shlex.join(["git", "-C", str(clone.path), "push", "origin", *branches])
    return RemoteUnavailable(
        words,
        next=f"It is tried again. If it keeps failing, run git manually for details: {by_hand}",
        remote=clone.url,
    )


def _seen(clone: Clone, branches: Iterable[str]) -> list[str | None]:
    """Return the remote's tips as last fetched."""
    return [clone.tip(name, remote=True) for name in branches]


def _catch_up(context: Context, clone: Clone, attempt: int) -> MaoError | None:
    time.sleep(PAUSE * 2**attempt * random.random())  # noqa: S311 (jitter)
    try:
        clone.fetch(context.access)
    except MaoError as error:
        return error
    return None


def _tips(context: Context, clone: Clone) -> dict[str, str]:
    found = {name: clone.tip(name) for name in (context.node, GROUND_TRUTH)}
    return {name: tip for name, tip in found.items() if tip is not None}


def _missing(clone: Clone, tips: dict[str, str]) -> dict[str, str]:
    """Return the branches that differ from the remote's as last fetched."""
    return {n: tip for n, tip in tips.items() if clone.tip(n, remote=True) != tip}


class BranchRewritten(Conflict):
    """The remote's branch of this node lacks commits that it was known to have."""

    default_code = "branch-rewritten"


def branch_rewritten(context: Context, clone: Clone, known: str, theirs: str) -> BranchRewritten:
    """Return the error for a rewritten branch, after saving the tip that the remote had."""
    kept = clone.rescue(context.node, known, context.clock.now())
    if clone.contains(known, theirs):
        return BranchRewritten(
            f"The branch {context.node} at {clone.url} was set back to an earlier state: it is at "
            f"{theirs[:10]}, without {known[:10]} that it had. Everything is kept here; nothing is pushed.",
            next="If the git server was restored from a backup, push the missing commits again: "
            f"maoctl dataset resolve {clone.path.stem} --replay . If that was intended: --take-theirs.",
            remote=clone.url,
        )
    return BranchRewritten(
        f"The branch {context.node} at {clone.url} was rewritten: it is at {theirs[:10]}, without "
        f"{known[:10]} that it had. The old tip is kept here as {kept}; nothing is pushed.",
        next=how_to_resolve(
            clone, "--merge (keeps all of both), --replay (what was never pushed) or --take-theirs"
        ),
        remote=clone.url,
    )


def how_to_resolve(clone: Clone, choices: str) -> str:
    """Return the `next` text of an error that a person has to resolve."""
    return f"Choose how to proceed: maoctl dataset resolve {clone.path.stem} with {choices}."


def branch_conflict(clone: Clone, conflict: MergeConflict) -> MaoError:
    """Return the error for commits of this node that conflict with what somebody pushed to its branch."""
    shown = ", ".join(conflict.paths[:5]) or "its history"
    return Conflict(
        f"This node's commits cannot be replayed onto its branch at {clone.url}: both changed {shown}.",
        code="branch-conflict",
        next="Nothing is lost. " + how_to_resolve(clone, "--merge or --take-theirs"),
        remote=clone.url,
    )


def advance_branches(context: Context, clone: Clone, *, promote: bool) -> dict[str, str]:
    """Move our branches on top of the remote's as last fetched; return the tips to push."""
    tip = follow_remote(context, clone)
    if tip is None:
        return {}
    if not promote:
        if clone.tip(GROUND_TRUTH, remote=True) is not None:
            clone.reset_to_remote(GROUND_TRUTH)  # what the nodes agreed on, not what was here alone
        return {context.node: tip}
    old = clone.tip(GROUND_TRUTH)
    base, theirs = old, clone.tip(GROUND_TRUTH, remote=True)
    if theirs is not None and (
        old is None or clone.relation(old, theirs) not in (Relation.SAME, Relation.AHEAD)
    ):
        base = theirs  # ours lacks commits of it; what ours adds is derived from snapshots anyway
    new = clone.promote(base, tip, context.author())
    if new != old and not clone.move_branch(GROUND_TRUTH, new, old):
        raise mao_git.errors.branch_busy(GROUND_TRUTH)
    return {context.node: tip, GROUND_TRUTH: new}


def follow_remote(context: Context, clone: Clone) -> str | None:
    """Fast-forward the node's branch to the remote's, or replay it on top; return the new tip.

    None when neither side has it. Raises MergeConflict, and BranchRewritten when the remote lacks commits
    that it was known to have; our branch stays as it was then.
    """
    branch = context.node
    ours, theirs = clone.tip(branch), clone.tip(branch, remote=True)
    known = clone.upstream_base(branch)
    if ours is None and known is not None:  # it was here: what was not pushed must not be forgotten
        raise mao_git.CloneBroken.of(clone.path.stem, f"its branch {branch} is missing")
    if theirs is None:
        return ours
    if known is not None and clone.is_rewritten(branch):
        raise branch_rewritten(context, clone, known, theirs)
    if ours is None or clone.contains(theirs, ours):
        new = theirs
    else:
        new = ours if clone.contains(ours, theirs) else clone.replay(ours, theirs, context.sign)
    if new != ours and not clone.move_branch(branch, new, ours):
        raise mao_git.errors.branch_busy(branch)
    clone.set_upstream_base(branch, theirs)
    return new
