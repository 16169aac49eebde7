"""A person's decision between this node's branch and the remote's, where the two conflict. Blocking.

Each way ends in a branch that contains the remote's, so it is pushed without force. Tips that would be lost
are kept as `refs/mao/rescued/<branch>/<time>`. May be repeated after a kill at any point.
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
    """Join the branches as chosen, and push; return the result and the error of a failed push.

    Raises NotFound without a clone, what `fetch` raises, and Conflict: `nothing-to-resolve`, or `branch-
    conflict` when `replay` does not apply.
    """
    clone = Clone.open(context.data.clone(name))
    clone.fetch(context.access)
    if how == "replay" and (put_back := _put_truth_back(context, clone, name, how)):
        return put_back
    ours, theirs = _sides(context, clone, name)
    new = _joined(context, clone, how, ours, theirs)
    # Our old tip and the one that the remote had are kept, where the new one does not contain them.
    known, now = clone.upstream_base(context.node), context.clock.now()
    left = [tip for tip in (known, ours) if tip is not None and not clone.contains(new, tip)]
    rescued = list(dict.fromkeys(clone.rescue(context.node, tip, now) for tip in left))
    if not clone.move_branch(context.node, new, ours):
        raise mao_git.errors.branch_busy(context.node)
    if how == "take-theirs":  # ours may hold what the branch has just left
        clone.reset_to_remote(GROUND_TRUTH)
    clone.set_upstream_base(context.node, theirs)
    for back in clone.rewound_branches():
        if back.branch == context.node and not clone.contains(new, back.seen):
            clone.accept_rewound(back, context.clock.now())
    try:
        failure = push_branches(context, clone, promote=promote).failure
    except MergeConflict as conflict:  # somebody has pushed once more since
        failure = branch_conflict(clone, conflict)
    done = Resolution(
        name=name,
        branch=context.node,
        how=how,
        commit=clone.tip(context.node) or new,
        rescued=rescued,
        pushed=failure is None,
        failure=failure and failure.detail,
    )
    return done, failure


def _put_truth_back(
    context: Context, clone: Clone, name: str, how: Strategy
) -> tuple[Resolution, MaoError | None] | None:
    """Push ground truth as last fetched, if the remote has an earlier state of it.

    The answer when that was all; None when this node's branch conflicts as well.
    """
    back = next((branch for branch in clone.rewound_branches() if branch.branch == GROUND_TRUTH), None)
    if back is None or not back.is_earlier:
        return None
    ours = clone.tip(GROUND_TRUTH)
    if ours != back.seen and not clone.move_branch(GROUND_TRUTH, back.seen, ours):
        raise mao_git.errors.branch_busy(GROUND_TRUTH)
    failure: MaoError | None = None
    try:
        clone.push({GROUND_TRUTH: back.seen}, context.access)
    except MaoError as error:
        failure = error
    except RemoteMoved as moved:
        failure = push_lost(clone, [GROUND_TRUTH], moved, was_moved=False)
    if clone.is_rewritten(context.node):
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
    ours = clone.tip(context.node)
    theirs = clone.tip(context.node, remote=True)
    if ours is not None and theirs is not None:
        if clone.is_rewritten(context.node):
            return ours, theirs
        if clone.relation(ours, theirs) is mao_git.Relation.DIVERGED:
            return ours, theirs
    raise Conflict(
        f"The branch {context.node} of {name} fits the one at {clone.url}.",
        code="nothing-to-resolve",
        next=f"See what waits: maoctl dataset show {name}. What can be pushed is pushed automatically.",
    )


def _joined(context: Context, clone: Clone, how: Strategy, ours: str, theirs: str) -> str:
    if how == "take-theirs":
        return theirs
    if clone.contains(ours, theirs):  # an earlier state of ours: pushing ours is all it takes
        return ours
    if how == "merge":
        return clone.merge_keeping_ours(ours, theirs, context.author())
    since = clone.upstream_base(context.node)
    if clone.merge_base(ours, theirs) is None:  # started again there: nothing was taken out of ours
        since = None
    try:
        return clone.replay(ours, theirs, context.sign, since=since)
    except MergeConflict as conflict:
        if since is None:
            raise branch_conflict(clone, conflict) from conflict
    try:  # what was not pushed is built upon what the remote has lost, so that goes back there as well
        return clone.replay(ours, theirs, context.sign)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict
