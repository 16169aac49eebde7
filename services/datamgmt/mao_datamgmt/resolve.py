"""How a person decides between this node's branch and the remote's where the two do not fit. Blocking.

Every way ends in a branch that contains the remote's, so that it is pushed without force. Tips that would be
lost are kept as `refs/mao/rescued/<branch>/<time>`. May be repeated after a kill at any point.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from mao_shared.errors import Conflict, MaoError
from mao_shared.models import GROUND_TRUTH

from . import repository
from .context import Context
from .deliver import blocked, deliver
from .repository import Clone, MergeConflict

How = Literal["merge", "replay", "take-theirs"]


class Resolution(BaseModel):
    """`commit`: the branch's tip now; `rescued`: references here that keep the tips it left."""

    name: str
    branch: str
    how: How
    commit: str
    rescued: list[str] = Field(description="References in this node's clone", examples=[[]])
    pushed: bool
    failure: str | None = None


def resolve(context: Context, name: str, how: How, promote: bool) -> tuple[Resolution, MaoError | None]:
    """Brings the branches together as told, and pushes; with why it is not at the remote, if so.

    Raises NotFound without a clone, what `fetch` raises, and Conflict: `nothing-to-resolve`, or
    `branch-conflict` when `replay` does not fit.
    """
    clone = repository.open_clone(context.data.clone(name))
    repository.fetch(clone, context.access)
    ours, theirs = _sides(context, clone, name)
    new = _joined(context, clone, how, ours, theirs)
    rescued = _rescued(context, clone, ours, new)
    if not repository.move_branch(clone, context.node, new, ours):
        raise repository.branch_busy(context.node)
    if how == "take-theirs":  # ours may hold what the branch has just left
        repository.take_over_remote(clone, GROUND_TRUTH)
    repository.note_known(clone, context.node, theirs)
    failure = _pushed(context, clone, promote)
    done = Resolution(
        name=name,
        branch=context.node,
        how=how,
        commit=repository.find_branch(clone, context.node) or new,
        rescued=rescued,
        pushed=failure is None,
        failure=failure and failure.detail,
    )
    return done, failure


def _sides(context: Context, clone: Clone, name: str) -> tuple[str, str]:
    ours = repository.find_branch(clone, context.node)
    theirs = repository.find_branch(clone, context.node, remote=True)
    if ours is not None and theirs is not None:
        if repository.is_rewritten(clone, context.node):
            return ours, theirs
        if repository.relation(clone, ours, theirs) is repository.Relation.DIVERGED:
            return ours, theirs
    raise Conflict(
        f"The branch {context.node} of {name} fits the one at {clone.url}.",
        code="nothing-to-resolve",
        next=f"See what waits: maoctl dataset show {name}. What can be pushed is pushed by itself.",
    )


def _joined(context: Context, clone: Clone, how: How, ours: str, theirs: str) -> str:
    if how == "take-theirs":
        return theirs
    if how == "merge":
        return repository.join(clone, ours, theirs, context.author())
    since = repository.find_known(clone, context.node)
    try:
        return repository.replay(clone, ours, theirs, context.sign, since=since)
    except MergeConflict as conflict:
        raise blocked(clone, conflict) from conflict


def _rescued(context: Context, clone: Clone, ours: str, new: str) -> list[str]:
    """Keeps what the new tip does not contain: our old one, and the one that the remote had."""
    known, now = repository.find_known(clone, context.node), context.clock.now()
    left = [tip for tip in (known, ours) if tip is not None and not repository.contains(clone, new, tip)]
    return list(dict.fromkeys(repository.rescue(clone, context.node, tip, now) for tip in left))


def _pushed(context: Context, clone: Clone, promote: bool) -> MaoError | None:
    try:
        return deliver(context, clone, promote=promote).failure
    except MergeConflict as conflict:  # somebody has pushed once more since
        return blocked(clone, conflict)
