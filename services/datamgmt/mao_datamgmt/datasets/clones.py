"""Clones and local remotes on this node's disk: made, fetched, swept, set aside. Blocking.

A clone that is there is enough to go on without its remote. Setting one aside deletes nothing: with all its
branches and what was never pushed it gets a dated name beside the others, which frees the dataset's name.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, ContentMissing, MergeConflict, RemoteMoved
from mao_shared.errors import Conflict, MaoError, NotFound
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH, Name, Record
from mao_shared.models.dataset import BareRepository, SetAside
from mao_shared.models.external import RemoteState

from . import broken as mending
from .delivery import branch_conflict, follow_remote, push_lost

log = get_logger(__name__)


@dataclass(frozen=True)
class SyncedClone:
    """An open clone, and why it could not be brought up to date, if so."""

    clone: Clone
    stale: MaoError | None = None


def sync_clone(context: Context, name: str, url: str) -> SyncedClone:
    """The clone of a dataset, with what its remote has now.

    Once a clone is there, an unreachable remote is no reason to stop, and its own remote is used: that
    changes by enrolment only, see `ensure`. Raises what `fetch` raises when there is none.
    """
    try:
        clone = Clone.open(context.data.clone(name))
    except NotFound:
        return SyncedClone(_make(context, name, url))
    if mending.awaiting_rebuild(
        context, name
    ):  # killed after the new clone got its name, and before that was noted
        mending.restore_commits(context, name, clone)
        mending.mark_rebuilt(context, name)
    if clone.url != url:
        log.warning("clone.other_master", dataset=name, clone=clone.url, enrolment=url)
    try:
        clone.fetch(context.access)
    except MaoError as error:
        return SyncedClone(clone, error)
    return SyncedClone(clone)


def follow_new_master(context: Context, name: str, url: str) -> None:
    """Lets a clone that is there follow a dataset that has moved to `url`.

    Raises Conflict (`dataset-master-changed`) when what is there is other data, and what `fetch` raises.
    """
    try:
        clone = Clone.open(context.data.clone(name))
    except NotFound:
        return
    if clone.url == url:
        return
    mao_git.check_url(url)
    tips = clone.ls_remote(url, context.access)
    if tips and not any(clone.has_commit(tip) for tip in tips.values()):
        raise _other_master(context, clone, name, url)
    clone.set_remote(url)
    log.info("clone.moved", dataset=name, url=url)


def _make(context: Context, name: str, url: str) -> Clone:
    """A new clone; in place of a broken one with all that only that one had, from before it has its name.

    Raises Unavailable (`clone-broken`) where a broken one waits for the remote.
    """
    broken = mending.awaiting_rebuild(context, name)
    try:
        return _make_now(context, name, url, 0 if broken else context.clone_depth)
    except MaoError as error:
        if not broken:
            raise
        raise mending.rebuild_waits(broken[-1][1], error) from error


def _make_now(context: Context, name: str, url: str, depth: int) -> Clone:
    path = context.data.clone(name)
    mao_git.check_url(url)
    with Clone.create(path, url) as clone:
        clone.fetch(context.access, depth=depth)
        if not clone.list_branches(remote=True):
            clone.check_pushable(context.access)
        mending.restore_commits(context, name, clone)
    mending.mark_rebuilt(context, name)
    return Clone.open(path)


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


def ensure_branch(context: Context, brought: SyncedClone) -> str:
    """Tip of the node's branch here, following the remote; begun from what is there if it is new.

    It begins at the remote's branch of that name, else at ground truth, else at the remote's default branch
    (where its HEAD names none, at `main` or `master`), else with an empty commit.
    """
    clone = brought.clone
    tip = follow_remote(context, clone)
    if tip is not None:
        return tip
    begin = clone.latest_tip(GROUND_TRUTH) or _default_tip(context, brought)
    if begin is None:
        tree = clone.tree(None)
        begin = clone.commit(tree, [], "Begin the dataset\n", context.author())
    clone.move_branch(context.node, begin, None)
    return begin


def _default_tip(context: Context, brought: SyncedClone) -> str | None:
    branches = brought.clone.list_branches(remote=True)
    if not branches or brought.stale is not None:
        return None
    name = brought.clone.default_branch(context.access)
    return next((branches[each] for each in (name, "main", "master") if each in branches), None)


def ensure_clone(context: Context, name: str, url: str) -> Clone:
    """The clone with the node's branch, pushed. May be repeated.

    Raises what `bring` and `push` raise, and Conflict (`branch-conflict`, `branch-rewritten`) when our
    branch does not fit the remote's. An unreachable remote is fine once it was seen to have the branch.
    """
    follow_new_master(context, name, url)
    brought = sync_clone(context, name, url)
    try:
        tip = ensure_branch(context, brought)
    except MergeConflict as conflict:
        raise branch_conflict(brought.clone, conflict) from conflict
    if brought.clone.tip(context.node, remote=True) is None:
        if brought.stale is not None:
            raise brought.stale
        try:
            brought.clone.push({context.node: tip}, context.access)
        except RemoteMoved as moved:
            raise push_lost(brought.clone, [context.node], moved, was_moved=False) from moved
    return brought.clone


OLD_LOCK = 60.0  # seconds


class BareRequest(Record):
    """Body of `POST /bare-repo/init`."""

    name: Name


def init_bare(data: DataDir, name: str, *, mine: bool = False) -> BareRepository:
    """An empty bare repository with HEAD on ground truth.

    Raises AlreadyExists, unless `mine`: then an earlier try of the same command made what is there.
    """
    path = data.bare(name)
    if not (mine and path.is_dir()):
        mao_git.init_bare(path)
    return BareRepository(name=name, master=str(path), path=str(path))


def dataset_names(data: DataDir) -> list[str]:
    """The datasets that have a clone here, in order."""
    folder = data.clone("x").parent
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".git") for path in folder.iterdir() if path.name.endswith(".git"))
    return sorted(name for name in names if not mao_git.is_unfinished(name))


def remove_half_made(data: DataDir) -> None:
    """Removes what a killed process left half-made; only when no other call runs, that is, at the start."""
    for folder in (data.clone("x").parent, data.bare("x").parent):
        mao_git.remove_unfinished(folder)


def sweep_clones(data: DataDir) -> list[Path]:
    """Removes what a killed process left in our clones, and old locks in local remotes; what was removed.

    Only at the start, under the lock of the data directory: then no writer of our clones is alive. To the
    local remotes others may be pushing, whose locks are young.
    """
    swept = [path for name in dataset_names(data) for path in mao_git.sweep(data.clone(name))]
    return swept + sweep_old_locks(data)


def sweep_old_locks(data: DataDir) -> list[Path]:
    """Removes locks that a killed writer left in the local remotes; what was removed."""
    bare = data.bare("x").parent
    whole = (each for each in bare.glob("*.git") if not mao_git.is_unfinished(each.name))
    return [lock for each in whole for lock in mao_git.sweep_locks(each, OLD_LOCK)]


def remote_of(context: Context, name: str) -> str:
    """The remote of the clone that is here. Raises NotFound."""
    return Clone.open(context.data.clone(name)).url


def set_aside(context: Context, name: str) -> SetAside:
    """Renames the clone, last, so that a kill in between leaves it where it was. Raises NotFound."""
    path = context.data.clone(name)
    clone = Clone.open(path)
    unpushed, _ = clone.unpushed(context.node)
    folder = context.data.aside(name, context.clock.now())
    folder.mkdir(parents=True, mode=0o700)
    kept = context.data.worktree(name)
    if kept.exists():
        kept.rename(folder / "worktree")
    target = path.rename(folder / path.name)
    log.info("clone.set_aside", dataset=name, path=str(target), unpushed=unpushed)
    return SetAside(name=name, path=str(target), remote=clone.url, unpushed=unpushed)


def check_remote(context: Context, master: str) -> RemoteState:
    """Asks the remote what it has. Raises InvalidInput (`dataset-url-refused`, `dataset-unreachable`),
    Forbidden and RemoteUnavailable as a clone would."""
    mao_git.check_url(master)
    with Clone.scratch(context.data.clone("check").parent, master) as clone:
        branch = clone.default_branch(context.access)
        clone.check_pushable(context.access)
    return RemoteState(master=master, default_branch=branch)


T = TypeVar("T")


def with_lfs_content(context: Context, clone: Clone, commit: str, call: Callable[[], T]) -> T:
    """Makes a call that reads files of a commit; once more when content had to be fetched first.

    That the remote lacks some content is told only where it is what the call reads.
    """
    try:
        return call()
    except ContentMissing:
        with suppress(NotFound):
            clone.fetch_lfs(commit, context.access)
    try:
        return call()
    except ContentMissing as missing:
        raise clone.content_missing(missing) from missing
