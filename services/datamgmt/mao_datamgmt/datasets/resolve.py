"""Resolves conflicts between this node's branch and the remote's as a person decides. Blocking.

Each strategy results in a branch that contains the remote's, so it is pushed without force. Tips that would
be lost are kept as `refs/mao/rescued/<branch>/<time>`. May be repeated after a kill at any point.
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
    """Resolve the conflict as chosen and push; return the result and the error of a failed push.

    Raises NotFound if there is no clone, the errors of `fetch`, and Conflict: `nothing-to-resolve`, or
    `branch-conflict` if a replay conflicts.
    """
    clone = Clone.open(context.data.clone(name))
    clone.fetch(context.access)
    if how == "replay" and (restored := _restore_ground_truth(context, clone, name, how)):
        return restored
    local_tip, remote_tip = _conflicting_tips(context, clone, name)
    new = _resolved_tip(context, clone, how, local_tip, remote_tip)
    # Our old tip and the one that the remote had are kept if the new one does not contain them.
    known, now = clone.upstream_base(context.node), context.clock.now()
    dropped = [tip for tip in (known, local_tip) if tip is not None and not clone.contains(new, tip)]
    rescued = list(dict.fromkeys(clone.rescue(context.node, tip, now) for tip in dropped))
    if not clone.move_branch(context.node, new, local_tip):
        raise mao_git.errors.branch_busy(context.node)
    if how == "take-theirs":  # ours may contain commits that the branch has just dropped
        clone.reset_to_remote(GROUND_TRUTH)
    clone.set_upstream_base(context.node, remote_tip)
    for rewound in clone.rewound_branches():
        if rewound.branch == context.node and not clone.contains(new, rewound.seen):
            clone.accept_rewound(rewound, context.clock.now())
    try:
        failure = push_branches(context, clone, promote=promote).failure
    except MergeConflict as conflict:  # somebody has pushed again meanwhile
        failure = branch_conflict(clone, conflict)
    resolution = Resolution(
        name=name,
        branch=context.node,
        how=how,
        commit=clone.tip(context.node) or new,
        rescued=rescued,
        pushed=failure is None,
        failure=failure and failure.detail,
    )
    return resolution, failure


def _restore_ground_truth(
    context: Context, clone: Clone, name: str, how: Strategy
) -> tuple[Resolution, MaoError | None] | None:
    """Push the last fetched ground truth if the remote went back to an earlier state.

    Returns None if there is nothing to push, or if this node's branch conflicts as well.
    """
    rewound = next((branch for branch in clone.rewound_branches() if branch.branch == GROUND_TRUTH), None)
    if rewound is None or not rewound.is_earlier:
        return None
    local_tip = clone.tip(GROUND_TRUTH)
    if local_tip != rewound.seen and not clone.move_branch(GROUND_TRUTH, rewound.seen, local_tip):
        raise mao_git.errors.branch_busy(GROUND_TRUTH)
    failure: MaoError | None = None
    try:
        clone.push({GROUND_TRUTH: rewound.seen}, context.access)
    except MaoError as error:
        failure = error
    except RemoteMoved as moved:
        failure = push_lost(clone, [GROUND_TRUTH], moved, was_moved=False)
    if clone.is_rewritten(context.node):
        return None
    detail = failure and failure.detail
    resolution = Resolution(
        name=name,
        branch=GROUND_TRUTH,
        how=how,
        commit=rewound.seen,
        rescued=[],
        pushed=failure is None,
        failure=detail,
    )
    return resolution, failure


def _conflicting_tips(context: Context, clone: Clone, name: str) -> tuple[str, str]:
    local_tip = clone.tip(context.node)
    remote_tip = clone.tip(context.node, remote=True)
    if local_tip is not None and remote_tip is not None:
        if clone.is_rewritten(context.node):
            return local_tip, remote_tip
        if clone.relation(local_tip, remote_tip) is mao_git.Relation.DIVERGED:
            return local_tip, remote_tip
    raise Conflict(
        f"The branch {context.node} of {name} does not conflict with the one at {clone.url}.",
        code="nothing-to-resolve",
        next=f"See the unpushed commits: maoctl dataset show {name}. They are pushed automatically.",
    )


def _resolved_tip(context: Context, clone: Clone, how: Strategy, local_tip: str, remote_tip: str) -> str:
    if how == "take-theirs":
        return remote_tip
    if clone.contains(local_tip, remote_tip):  # an earlier state of ours: ours can be pushed as it is
        return local_tip
    if how == "merge":
        return clone.merge_keeping_ours(local_tip, remote_tip, context.author())
    since = clone.upstream_base(context.node)
    if clone.merge_base(local_tip, remote_tip) is None:  # unrelated history: no commit of ours is excluded
        since = None
    try:
        return clone.replay(local_tip, remote_tip, context.sign, since=since)
    except MergeConflict as conflict:
        if since is None:
            raise branch_conflict(clone, conflict) from conflict
    try:  # unpushed commits build on those that the remote lost: replay these as well
        return clone.replay(local_tip, remote_tip, context.sign)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict
