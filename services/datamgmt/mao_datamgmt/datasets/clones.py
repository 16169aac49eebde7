"""Creates, fetches, cleans and sets aside clones and local remotes on this node's disk. Blocking.

A dataset with a clone can be used while its remote is unavailable. Setting a clone aside deletes nothing: it
is renamed with all its branches and unpushed commits, which frees the dataset's name.
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
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import BareRepository, SetAside
from mao_shared.models.external import RemoteState

from . import broken
from .delivery import branch_conflict, follow_remote, push_lost

log = get_logger(__name__)

STALE_LOCK_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class SyncedClone:
    """An open clone. `stale` is the error that prevented its update, if any."""

    clone: Clone
    stale: MaoError | None = None


def sync_clone(context: Context, name: str, url: str) -> SyncedClone:
    """Open a dataset's clone and fetch its remote; clone it from `url` if there is none.

    An existing clone keeps using its own remote, which only an enrolment changes (see `ensure_clone`);
    if the remote cannot be fetched, `stale` is the error. Without a clone the errors of `fetch` are raised.
    """
    try:
        clone = Clone.open(context.data.clone(name))
    except NotFound:
        return SyncedClone(_create(context, name, url))
    if broken.awaiting_rebuild(context, name):  # the process was killed after the new clone was in place
        broken.restore_commits(context, name, clone)
        broken.mark_rebuilt(context, name)
    if clone.url != url:
        log.warning("clone.other_master", dataset=name, clone=clone.url, enrolment=url)
    try:
        clone.fetch(context.access)
    except MaoError as error:
        return SyncedClone(clone, error)
    return SyncedClone(clone)


def follow_new_master(context: Context, name: str, url: str) -> None:
    """Point a clone at its dataset's new remote `url`.

    Raises Conflict (`dataset-master-changed`) if the remote contains other data, and the errors of `fetch`.
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
        branch = f"refs/heads/{context.node}"
        push = shlex.join(["git", "-C", str(clone.path), "push", url, f"{branch}:{branch}"])
        raise Conflict(
            f"Dataset {name!r} is cloned on this node from {clone.url}, and its remote is now {url}. "
            "They have no commit in common.",
            code="dataset-master-changed",
            next=f"If it is the same data, push only this node's branch there: {push} . If it "
            f"is other data and the clone is left over, set it aside (nothing is deleted): maoctl dataset "
            f"set-aside {name}. Otherwise register the other data under another name.",
        )
    clone.set_remote(url)
    log.info("clone.moved", dataset=name, url=url)


def _create(context: Context, name: str, url: str) -> Clone:
    """Create a clone; a replacement for a broken one also gets the commits that only that one had.

    Raises Unavailable (`clone-broken`) if the remote of a broken one cannot be cloned.
    """
    path, waiting = context.data.clone(name), broken.awaiting_rebuild(context, name)
    try:
        mao_git.check_url(url)
        with Clone.create(path, url) as clone:
            clone.fetch(context.access, depth=0 if waiting else context.clone_depth)
            if not clone.list_branches(remote=True):
                clone.check_pushable(context.access)
            broken.restore_commits(context, name, clone)
        broken.mark_rebuilt(context, name)
        return Clone.open(path)
    except MaoError as error:
        if not waiting:
            raise
        raise broken.rebuild_waits(waiting[-1][1], error) from error


def ensure_branch(context: Context, synced: SyncedClone) -> str:
    """Return the tip of the node's branch after following the remote; create the branch if it is new.

    It starts at the remote's branch of that name, otherwise at ground truth, otherwise at the default branch
    (HEAD, `main` or `master`), otherwise at an empty commit.
    """
    clone = synced.clone
    tip = follow_remote(context, clone)
    if tip is not None:
        return tip
    start = clone.latest_tip(GROUND_TRUTH)
    if start is None and synced.stale is None and (branches := clone.list_branches(remote=True)):
        default = clone.default_branch(context.access)
        start = next((branches[name] for name in (default, "main", "master") if name in branches), None)
    if start is None:
        tree = clone.tree(None)
        start = clone.commit(tree, [], "Begin the dataset\n", context.author())
    clone.move_branch(context.node, start, None)
    return start


def ensure_clone(context: Context, name: str, url: str) -> Clone:
    """Ensure that the clone exists and the node's branch is pushed. May be repeated.

    Raises the errors of `sync_clone` and `push`, and Conflict (`branch-conflict`, `branch-rewritten`) if our
    branch conflicts with the remote's. An unreachable remote is no error if it is known to have the branch.
    """
    follow_new_master(context, name, url)
    synced = sync_clone(context, name, url)
    try:
        tip = ensure_branch(context, synced)
    except MergeConflict as conflict:
        raise branch_conflict(synced.clone, conflict) from conflict
    if synced.clone.tip(context.node, remote=True) is None:
        if synced.stale is not None:
            raise synced.stale
        try:
            synced.clone.push({context.node: tip}, context.access)
        except RemoteMoved as moved:
            raise push_lost(synced.clone, [context.node], moved, was_moved=False) from moved
    return synced.clone


def init_bare(data: DataDir, name: str, *, name_was_free: bool = False) -> BareRepository:
    """Create an empty bare repository with HEAD at ground truth.

    Raises AlreadyExists, except if `name_was_free` at the command's first attempt, which then created it.
    """
    path = data.bare(name)
    if not (name_was_free and path.is_dir()):
        mao_git.init_bare(path)
    return BareRepository(name=name, master=str(path), path=str(path))


def dataset_names(data: DataDir) -> list[str]:
    """Return the names of the datasets that have a clone on this node, sorted."""
    folder = data.clone("x").parent
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".git") for path in folder.iterdir() if path.name.endswith(".git"))
    return sorted(name for name in names if not mao_git.is_unfinished(name))


def remove_unfinished(data: DataDir) -> None:
    """Remove repositories that a killed process left unfinished.

    To be called only at startup, before any other call.
    """
    for folder in (data.clone("x").parent, data.bare("x").parent):
        mao_git.remove_unfinished(folder)


def sweep_clones(data: DataDir) -> list[Path]:
    """Remove what killed processes left in clones, and old locks in local remotes; return the paths.

    To be called only at startup, under the lock of the data directory: nobody then writes to the clones.
    Others may be pushing to the local remotes, but their locks are recent.
    """
    swept = [path for name in dataset_names(data) for path in mao_git.sweep(data.clone(name))]
    return swept + sweep_old_locks(data)


def sweep_old_locks(data: DataDir) -> list[Path]:
    """Remove locks that killed writers left in the local remotes; return their paths."""
    bare = data.bare("x").parent
    finished = (repository for repository in bare.glob("*.git") if not mao_git.is_unfinished(repository.name))
    return [lock for repository in finished for lock in mao_git.sweep_locks(repository, STALE_LOCK_SECONDS)]


def clone_remote_url(context: Context, name: str) -> str:
    """Return the URL of a clone's remote. Raises NotFound."""
    return Clone.open(context.data.clone(name)).url


def set_aside(context: Context, name: str) -> SetAside:
    """Move a clone and its worktree aside, the clone last. Raises NotFound.

    If the process is killed in between, the clone stays where it was.
    """
    path = context.data.clone(name)
    clone = Clone.open(path)
    unpushed, _ = clone.unpushed(context.node)
    folder = context.data.aside(name, context.clock.now())
    folder.mkdir(parents=True, mode=0o700)
    worktree = context.data.worktree(name)
    if worktree.exists():
        worktree.rename(folder / "worktree")
    target = path.rename(folder / path.name)
    log.info("clone.set_aside", dataset=name, path=str(target), unpushed=unpushed)
    return SetAside(name=name, path=str(target), remote=clone.url, unpushed=unpushed)


def check_remote(context: Context, master: str) -> RemoteState:
    """Check that a repository can be a dataset's remote.

    Raises InvalidInput (`dataset-url-refused`, `dataset-unreachable`), Forbidden and RemoteUnavailable.
    """
    mao_git.check_url(master)
    with Clone.scratch(context.data.clone("check").parent, master) as clone:
        branch = clone.default_branch(context.access)
        clone.check_pushable(context.access)
    return RemoteState(master=master, default_branch=branch)


def with_lfs_content(context: Context, clone: Clone, commit: str, call: Callable[[], T]) -> T:
    """Call a function that reads files of a commit; if LFS content is missing, fetch it and call again.

    Content that the remote lacks is an error only if the call reads it.
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
