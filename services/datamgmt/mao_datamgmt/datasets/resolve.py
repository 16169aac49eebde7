"""How a person decides between this node's branch and the remote's where the two do not fit. Blocking.

Every way ends in a branch that contains the remote's, so that it is pushed without force. Tips that would be
lost are kept as `refs/mao/rescued/<branch>/<time>`. May be repeated after a kill at any point.
"""

from __future__ import annotations

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, MergeConflict, RemoteMoved
from mao_shared.errors import Conflict, MaoError
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import Resolution, Strategy

from .delivery import branch_conflict, push_branches, push_lost


def resolve(context: Context, name: str, how: Strategy, promote: bool) -> tuple[Resolution, MaoError | None]:
    """Brings the branches together as told, and pushes; with why it is not at the remote, if so.

    Raises NotFound without a clone, what `fetch` raises, and Conflict: `nothing-to-resolve`, or
    `branch-conflict` when `replay` does not fit.
    """
    clone = mao_git.open_clone(context.data.clone(name))
    mao_git.fetch(clone, context.access)
    if how == "replay" and (put_back := _put_truth_back(context, clone, name, how)):
        return put_back
    ours, theirs = _sides(context, clone, name)
    new = _joined(context, clone, how, ours, theirs)
    rescued = _rescued(context, clone, ours, new)
    if not mao_git.move_branch(clone, context.node, new, ours):
        raise mao_git.branch_busy(context.node)
    if how == "take-theirs":  # ours may hold what the branch has just left
        mao_git.take_over_remote(clone, GROUND_TRUTH)
    mao_git.note_known(clone, context.node, theirs)
    _accept(context, clone, new)
    failure = _pushed(context, clone, promote)
    done = Resolution(
        name=name,
        branch=context.node,
        how=how,
        commit=mao_git.find_branch(clone, context.node) or new,
        rescued=rescued,
        pushed=failure is None,
        failure=failure and failure.detail,
    )
    return done, failure


def _put_truth_back(
    context: Context, clone: Clone, name: str, how: Strategy
) -> tuple[Resolution, MaoError | None] | None:
    """Pushes ground truth as it was seen, where the remote has an earlier state of it.

    What to answer when that was all there was to do; None when this node's branch does not fit either.
    """
    back = next((each for each in mao_git.gone_back(clone) if each.branch == GROUND_TRUTH), None)
    if back is None or not back.is_earlier:
        return None
    ours = mao_git.find_branch(clone, GROUND_TRUTH)
    if ours != back.seen and not mao_git.move_branch(clone, GROUND_TRUTH, back.seen, ours):
        raise mao_git.branch_busy(GROUND_TRUTH)
    failure: MaoError | None = None
    try:
        mao_git.push(clone, {GROUND_TRUTH: back.seen}, context.access)
    except MaoError as error:
        failure = error
    except RemoteMoved as moved:
        failure = push_lost(clone, [GROUND_TRUTH], moved, was_moved=False)
    if mao_git.is_rewritten(clone, context.node):
        return None
    words = failure and failure.detail
    done = Resolution(
        name=name,
        branch=GROUND_TRUTH,
        how=how,
        commit=back.seen,
        rescued=[],
        pushed=failure is None,
        failure=words,
    )
    return done, failure


def _sides(context: Context, clone: Clone, name: str) -> tuple[str, str]:
    ours = mao_git.find_branch(clone, context.node)
    theirs = mao_git.find_branch(clone, context.node, remote=True)
    if ours is not None and theirs is not None:
        if mao_git.is_rewritten(clone, context.node):
            return ours, theirs
        if mao_git.relation(clone, ours, theirs) is mao_git.Relation.DIVERGED:
            return ours, theirs
    raise Conflict(
        f"The branch {context.node} of {name} fits the one at {clone.url}.",
        code="nothing-to-resolve",
        next=f"See what waits: maoctl dataset show {name}. What can be pushed is pushed by itself.",
    )


def _joined(context: Context, clone: Clone, how: Strategy, ours: str, theirs: str) -> str:
    if how == "take-theirs":
        return theirs
    if mao_git.contains(clone, ours, theirs):  # an earlier state of ours: pushing ours is all it takes
        return ours
    if how == "merge":
        return mao_git.join(clone, ours, theirs, context.author())
    since = mao_git.find_known(clone, context.node)
    if mao_git.base_of(clone, ours, theirs) is None:  # begun anew there: nothing was taken out of ours
        since = None
    try:
        return mao_git.replay(clone, ours, theirs, context.sign, since=since)
    except MergeConflict as conflict:
        if since is None:
            raise branch_conflict(clone, conflict) from conflict
    try:  # what was not pushed is built upon what the remote has lost, so that goes back there as well
        return mao_git.replay(clone, ours, theirs, context.sign)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict


def _rescued(context: Context, clone: Clone, ours: str, new: str) -> list[str]:
    """Keeps what the new tip does not contain: our old one, and the one that the remote had."""
    known, now = mao_git.find_known(clone, context.node), context.clock.now()
    left = [tip for tip in (known, ours) if tip is not None and not mao_git.contains(clone, new, tip)]
    return list(dict.fromkeys(mao_git.rescue(clone, context.node, tip, now) for tip in left))


def _accept(context: Context, clone: Clone, new: str) -> None:
    """What the new tip leaves out of what the remote's branch of this node had is decided by this."""
    for back in mao_git.gone_back(clone):
        if back.branch == context.node and not mao_git.contains(clone, new, back.seen):
            mao_git.accept_as_seen(clone, back, context.clock.now())


def _pushed(context: Context, clone: Clone, promote: bool) -> MaoError | None:
    try:
        return push_branches(context, clone, promote=promote).failure
    except MergeConflict as conflict:  # somebody has pushed once more since
        return branch_conflict(clone, conflict)
