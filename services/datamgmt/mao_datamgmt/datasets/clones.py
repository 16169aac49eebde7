"""A dataset's clone on this node: made if absent, fetched if there, with the node's branch. Blocking."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, MergeConflict, RemoteMoved
from mao_shared.errors import Conflict, MaoError, NotFound, Unavailable
from mao_shared.git_urls import master_fault
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import GROUND_TRUTH

from . import broken as mending
from .delivery import blocked, follow_remote, keeps_moving

log = get_logger(__name__)


@dataclass(frozen=True)
class Brought:
    """An open clone, and why it could not be brought up to date, if so."""

    clone: Clone
    stale: MaoError | None = None


def bring(context: Context, name: str, url: str) -> Brought:
    """The clone of a dataset, with what its remote has now.

    Once a clone is there, an unreachable remote is no reason to stop, and its own remote is used: that
    changes by enrolment only, see `ensure`. Raises what `fetch` raises when there is none.
    """
    try:
        clone = mao_git.open_clone(context.data.clone(name))
    except NotFound:
        return Brought(_make(context, name, url))
    if mending.waiting(context, name):  # killed after the new clone got its name, and before that was noted
        mending.put_back(context, name, clone)
        mending.note_made_anew(context, name)
    if clone.url != url:
        log.warning("clone.other_master", dataset=name, clone=clone.url, enrolment=url)
    try:
        mao_git.fetch(clone, context.access)
    except MaoError as error:
        return Brought(clone, error)
    return Brought(clone)


def follow_master(context: Context, name: str, url: str) -> None:
    """Lets a clone that is there follow a dataset that has moved to `url`.

    Raises Conflict (`dataset-master-changed`) when what is there is other data, and what `fetch` raises.
    """
    try:
        clone = mao_git.open_clone(context.data.clone(name))
    except NotFound:
        return
    if clone.url == url:
        return
    mao_git.check_url(url)
    tips = mao_git.look_at(clone, url, context.access)
    if tips and not any(mao_git.has_commit(clone, tip) for tip in tips.values()):
        raise _other_master(context, clone, name, url)
    mao_git.move_remote(clone, url)
    log.info("clone.moved", dataset=name, url=url)


def _make(context: Context, name: str, url: str) -> Clone:
    """A new clone; in place of a broken one with all that only that one had, from before it has its name.

    Raises Unavailable (`clone-broken`) where a broken one waits for the remote.
    """
    broken = mending.waiting(context, name)
    try:
        return _make_now(context, name, url, 0 if broken else context.clone_depth)
    except MaoError as error:
        if not broken:
            raise
        raise mending.waits(broken[-1][1], error) from error


def _make_now(context: Context, name: str, url: str, depth: int) -> Clone:
    path = context.data.clone(name)
    mao_git.check_url(url)
    temporary = mao_git.create_clone(path, url)
    try:
        clone = mao_git.open_clone(temporary)
        mao_git.fetch(clone, context.access, depth=depth)
        if not mao_git.list_branches(clone, remote=True):
            mao_git.require_usable_if_empty(clone, context.access)
        mending.put_back(context, name, clone)
    except BaseException:
        mao_git.discard_clone(temporary)
        raise
    mao_git.finish_clone(temporary, path)
    mending.note_made_anew(context, name)
    return mao_git.open_clone(path)


def mend(context: Context, name: str, url: str | None) -> Unavailable | None:
    """After trouble with a clone: sets it aside if it is broken, and makes it anew if one waits for that.

    What to raise in place of that trouble, so that it is tried again; None when the clone has no part in it.
    `url`: of the remote, where the broken clone does not tell. Raises what `mending.set_broken_aside` raises.
    """
    aside = mending.set_broken_aside(context, name)
    broken = mending.waiting(context, name)
    if aside is None and not broken:
        return None
    latest = broken[-1][1]
    remote = latest.url if latest.url is not None and master_fault(latest.url) is None else url
    if remote is None:
        return mending.waits(latest, MaoError("Its remote is not known until a run needs the dataset."))
    try:
        bring(context, name, remote)
    except Unavailable as error:
        return error
    return Unavailable(
        f"The clone of dataset {name} was broken ({latest.fault}) and was made anew.",
        code="clone-broken",
        next="It is tried again by itself.",
    )


def _other_master(context: Context, clone: Clone, name: str, url: str) -> Conflict:
    branch = f"refs/heads/{context.node}"
    push = shlex.join(["git", "-C", str(clone.path), "push", url, f"{branch}:{branch}"])
    return Conflict(
        f"Dataset {name!r} is cloned on this node from {clone.url}, and is now to come from {url}. "
        "The two have no commit in common.",
        code="dataset-master-changed",
        next=f"If it is the same data, push this node's own branch there, and no other: {push} . If it is "
        f"other data and the clone is left over, put it away, nothing is deleted: maoctl dataset set-aside "
        f"{name}. Else register the other data under another name.",
    )


def ensure_branch(context: Context, brought: Brought) -> str:
    """Tip of the node's branch here, following the remote; begun from what is there if it is new.

    It begins at the remote's branch of that name, else at ground truth, else at the remote's default branch
    (where its HEAD names none, at `main` or `master`), else with an empty commit.
    """
    clone = brought.clone
    tip = follow_remote(context, clone)
    if tip is not None:
        return tip
    begin = mao_git.settle(clone, GROUND_TRUTH) or _default_tip(context, brought)
    if begin is None:
        tree = mao_git.tree_of(clone, None)
        begin = mao_git.commit_tree(clone, tree, [], "Begin the dataset\n", context.author())
    mao_git.move_branch(clone, context.node, begin, None)
    return begin


def _default_tip(context: Context, brought: Brought) -> str | None:
    branches = mao_git.list_branches(brought.clone, remote=True)
    if not branches or brought.stale is not None:
        return None
    name = mao_git.default_branch(brought.clone, context.access)
    return next((branches[each] for each in (name, "main", "master") if each in branches), None)


def ensure(context: Context, name: str, url: str) -> Clone:
    """The clone with the node's branch, pushed. May be repeated.

    Raises what `bring` and `push` raise, and Conflict (`branch-conflict`, `branch-rewritten`) when our
    branch does not fit the remote's. An unreachable remote is fine once it was seen to have the branch.
    """
    follow_master(context, name, url)
    brought = bring(context, name, url)
    try:
        tip = ensure_branch(context, brought)
    except MergeConflict as conflict:
        raise blocked(brought.clone, conflict) from conflict
    if mao_git.find_branch(brought.clone, context.node, remote=True) is None:
        if brought.stale is not None:
            raise brought.stale
        try:
            mao_git.push(brought.clone, {context.node: tip}, context.access)
        except RemoteMoved as moved:
            raise keeps_moving(brought.clone, [context.node], moved, was_moved=False) from moved
    return brought.clone
