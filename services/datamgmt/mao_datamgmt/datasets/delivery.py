"""Delivers this node's commits to the remote: follow it, promote to ground truth, push. Blocking.

Nothing is force-pushed: if the remote has moved, our commits are replayed on top of it and pushed again. If
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
from mao_shared.models.check import quarantine_branch

from . import quarantine

MAX_ATTEMPTS = 6
RETRY_SECONDS = 0.05  # before the second attempt; doubled each time, with jitter


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """The tips of the branches after a push. `failure` is the error if the remote lacks one of them.

    `observed` is True if the remote has the node's own branch, even if pushing ground truth failed.
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

    An unreachable or refusing remote is reported in the result, not raised; a refused branch does not block
    the other. Raises MergeConflict if our commits cannot be replayed onto the remote's.
    """
    failure: MaoError | None = None
    for attempt in range(MAX_ATTEMPTS):
        try:
            tips = advance_branches(context, clone, promote=promote)
        except BranchRewritten as rewritten:
            if attempt or _catch_up(
                context, clone, attempt
            ):  # the remote may have been corrected since the last fetch
                return PushOutcome(_tips(context, clone)[context.node], None, rewritten, observed=False)
            continue
        try:
            clone.push(_missing(clone, tips), context.access)
            failure = None
            break
        except RemoteMoved as moved:
            before = _remote_tips(clone, tips)
            failure = _catch_up(context, clone, attempt)
            if failure is None:
                failure = push_lost(clone, list(tips), moved, was_moved=_remote_tips(clone, tips) != before)
        except MaoError as error:
            failure = error
            break
    tips = _tips(context, clone)
    observed = failure is None or context.node not in _missing(clone, tips)
    return PushOutcome(tips[context.node], tips.get(GROUND_TRUTH), failure, observed)


def push_lost(clone: Clone, branches: list[str], moved: RemoteMoved, *, was_moved: bool) -> MaoError:
    """Return the error for a rejected push: a lost race, or a branch that the remote refuses to move.

    `was_moved`: a later fetch has shown that somebody else moved a branch.
    """
    existing = clone.list_branches(remote=True)
    for name in branches:
        others = mao_git.conflicting_branches(name, existing) or mao_git.case_variants(name, existing)
        if others and name not in existing:
            return mao_git.branch_name_taken(clone.url, name, others)
    if was_moved:
        detail = f"Others kept pushing to {clone.url}: {moved}."
    else:
        detail = f"{clone.url} refuses to move a branch although nobody else moved it: {moved}."
    command = shlex.join(["git", "-C", str(clone.path), "push", "origin", *branches])
    return RemoteUnavailable(
        detail,
        next=f"It is retried automatically. If it keeps failing, run git manually for details: {command}",
        remote=clone.url,
    )


def _remote_tips(clone: Clone, branches: Iterable[str]) -> list[str | None]:
    """Return the remote's tips as last fetched."""
    return [clone.tip(name, remote=True) for name in branches]


def _catch_up(context: Context, clone: Clone, attempt: int) -> MaoError | None:
    time.sleep(RETRY_SECONDS * 2**attempt * random.random())  # noqa: S311 (jitter)
    try:
        clone.fetch(context.access)
    except MaoError as error:
        return error
    return None


def _tips(context: Context, clone: Clone) -> dict[str, str]:
    names = (context.node, GROUND_TRUTH, quarantine_branch(context.node))
    found = {name: clone.tip(name) for name in names}
    return {name: tip for name, tip in found.items() if tip is not None}


def _missing(clone: Clone, tips: dict[str, str]) -> dict[str, str]:
    """Return the branches that differ from the remote's last fetched state."""
    return {n: tip for n, tip in tips.items() if clone.tip(n, remote=True) != tip}


class BranchRewritten(Conflict):
    """The remote's branch of this node lacks commits that it is known to have had."""

    default_code = "branch-rewritten"


def branch_rewritten(context: Context, clone: Clone, known: str, remote_tip: str) -> BranchRewritten:
    """Return the error for a rewritten branch, after saving the tip that the remote had."""
    rescued_ref = clone.rescue(context.node, known, context.clock.now())
    if clone.contains(known, remote_tip):
        return BranchRewritten(
            f"The branch {context.node} at {clone.url} was set back to an earlier state: it is at "
            f"{remote_tip[:10]}, without {known[:10]} that it had. Everything is kept; nothing is pushed.",
            next="If the git server was restored from a backup, push the missing commits again: "
            f"maoctl dataset resolve {clone.path.stem} --replay . If that was intended: --take-theirs.",
            remote=clone.url,
        )
    return BranchRewritten(
        f"The branch {context.node} at {clone.url} was rewritten: it is at {remote_tip[:10]}, without "
        f"{known[:10]} that it had. The old tip is kept here as {rescued_ref}; nothing is pushed.",
        next=how_to_resolve(
            clone, "--merge (keeps all of both), --replay (what was never pushed) or --take-theirs"
        ),
        remote=clone.url,
    )


def how_to_resolve(clone: Clone, choices: str) -> str:
    """Return the `next` text of an error that a person has to resolve."""
    return f"Choose how to proceed: 'maoctl dataset resolve {clone.path.stem}' with {choices}."


def branch_conflict(clone: Clone, conflict: MergeConflict) -> MaoError:
    """Return the error for commits of this node that conflict with others pushed to its branch."""
    paths = ", ".join(conflict.paths[:5]) or "its history"
    return Conflict(
        f"This node's commits cannot be replayed onto its branch at {clone.url}: both changed {paths}.",
        code="branch-conflict",
        next="Nothing is lost. " + how_to_resolve(clone, "--merge or --take-theirs"),
        remote=clone.url,
    )


def advance_branches(context: Context, clone: Clone, *, promote: bool) -> dict[str, str]:
    """Move our branches on top of the remote's as last fetched; return the tips to push.

    The quarantine branch is last, so that no other waits if it is refused.
    """
    tip = follow_remote(context, clone)
    if tip is None:
        return {}
    quarantined = quarantine.follow_remote(context, clone)
    last = {} if quarantined is None else {quarantine_branch(context.node): quarantined}
    if not promote:
        if clone.tip(GROUND_TRUTH, remote=True) is not None:
            clone.reset_to_remote(GROUND_TRUTH)  # the ground truth that the nodes agreed on, not a local one
        return {context.node: tip} | last
    old = clone.tip(GROUND_TRUTH)
    base, remote_tip = old, clone.tip(GROUND_TRUTH, remote=True)
    if remote_tip is not None and (
        old is None or clone.relation(old, remote_tip) not in (Relation.SAME, Relation.AHEAD)
    ):
        base = remote_tip  # commits that only ours has are derived from snapshots anyway
    new = clone.promote(base, tip, context.author())
    if new != old and not clone.move_branch(GROUND_TRUTH, new, old):
        raise mao_git.errors.branch_busy(GROUND_TRUTH)
    return {context.node: tip, GROUND_TRUTH: new} | last


def follow_remote(context: Context, clone: Clone) -> str | None:
    """Fast-forward the node's branch to the remote's, or replay it on top; return the new tip.

    None if neither side has it. Raises MergeConflict, and BranchRewritten if the remote lacks commits
    that it is known to have had; our branch is then left as it is.
    """
    branch = context.node
    local_tip, remote_tip = clone.tip(branch), clone.tip(branch, remote=True)
    known = clone.upstream_base(branch)
    if (
        local_tip is None and known is not None
    ):  # it existed, perhaps with unpushed commits, which must not be forgotten
        raise mao_git.CloneBroken.of(clone.path.stem, f"its branch {branch} is missing")
    if remote_tip is None:
        return local_tip
    if known is not None and clone.is_rewritten(branch):
        raise branch_rewritten(context, clone, known, remote_tip)
    if local_tip is None or clone.contains(remote_tip, local_tip):
        new = remote_tip
    else:
        new = (
            local_tip
            if clone.contains(local_tip, remote_tip)
            else clone.replay(local_tip, remote_tip, context.sign)
        )
    if new != local_tip and not clone.move_branch(branch, new, local_tip):
        raise mao_git.errors.branch_busy(branch)
    clone.set_upstream_base(branch, remote_tip)
    return new
