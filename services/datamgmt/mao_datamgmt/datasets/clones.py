"""Clones and local remotes on this node's disk: made, fetched, swept, set aside. Blocking.

An existing clone is enough to continue without its remote. Setting one aside deletes nothing: with all its
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
    """An open clone. `stale`: the error that kept it from being updated, if any."""

    clone: Clone
    stale: MaoError | None = None


def sync_clone(context: Context, name: str, url: str) -> SyncedClone:
    """Open a dataset's clone and fetch its remote; clone it from `url` if there is none.

    An existing clone keeps using its own remote, which only an enrolment changes (see `ensure_clone`);
    `stale` says that the remote does not answer. Without a clone it raises what `fetch` raises.
    """
    try:
        clone = Clone.open(context.data.clone(name))
    except NotFound:
        return SyncedClone(_make(context, name, url))
    if broken.awaiting_rebuild(context, name):  # the process was killed when the new clone had its name
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
        branch = f"refs/heads/{context.node}"
        push = shlex.join(["git", "-C", str(clone.path), "push", url, f"{branch}:{branch}"])
        raise Conflict(
            f"Dataset {name!r} is cloned on this node from {clone.url}, and its remote is now {url}. "
            "The two have no commit in common.",
            code="dataset-master-changed",
            next=f"If it is the same data, push this node's own branch there, and no other: {push} . If it "
            f"is other data and the clone is left over, set it aside (nothing is deleted): maoctl dataset "
            f"set-aside {name}. Else register the other data under another name.",
        )
    clone.set_remote(url)
    log.info("clone.moved", dataset=name, url=url)


def _make(context: Context, name: str, url: str) -> Clone:
    """Make a new clone; a replacement for a broken one also gets all commits that only that one had.

    Raises Unavailable (`clone-broken`) where a broken one waits for the remote.
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

    It starts at the remote's branch of that name, else at ground truth, else at the remote's default branch
    (where its HEAD names none, at `main` or `master`), else with an empty commit.
    """
    clone = synced.clone
    tip = follow_remote(context, clone)
    if tip is not None:
        return tip
    begin = clone.latest_tip(GROUND_TRUTH)
    if begin is None and synced.stale is None and (branches := clone.list_branches(remote=True)):
        default = clone.default_branch(context.access)
        begin = next((branches[name] for name in (default, "main", "master") if name in branches), None)
    if begin is None:
        tree = clone.tree(None)
        begin = clone.commit(tree, [], "Begin the dataset\n", context.author())
    clone.move_branch(context.node, begin, None)
    return begin


def ensure_clone(context: Context, name: str, url: str) -> Clone:
    """Make sure that the clone exists and the node's branch is pushed. May be repeated.

    Raises what `sync_clone` and `push` raise, and Conflict (`branch-conflict`, `branch-rewritten`) when our
    branch does not fit the remote's. An unreachable remote is no error once it was seen to have the branch.
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
    """Make an empty bare repository with HEAD on ground truth.

    Raises AlreadyExists, unless `name_was_free` when the command first came: then an earlier attempt made it.
    """
    path = data.bare(name)
    if not (name_was_free and path.is_dir()):
        mao_git.init_bare(path)
    return BareRepository(name=name, master=str(path), path=str(path))


def dataset_names(data: DataDir) -> list[str]:
    """Return the names of the datasets that have a clone here, sorted."""
    folder = data.clone("x").parent
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".git") for path in folder.iterdir() if path.name.endswith(".git"))
    return sorted(name for name in names if not mao_git.is_unfinished(name))


def remove_unfinished(data: DataDir) -> None:
    """Remove repositories that a killed process left unfinished.

    Only for the start, while no other call runs.
    """
    for folder in (data.clone("x").parent, data.bare("x").parent):
        mao_git.remove_unfinished(folder)


def sweep_clones(data: DataDir) -> list[Path]:
    """Remove leftovers of killed processes from clones, and old locks from local remotes; return their paths.

    Only at the start, under the lock of the data directory: then nobody writes to our clones. Others may be
    pushing to the local remotes, but their locks are young.
    """
    swept = [path for name in dataset_names(data) for path in mao_git.sweep(data.clone(name))]
    return swept + sweep_old_locks(data)


def sweep_old_locks(data: DataDir) -> list[Path]:
    """Remove locks that killed writers left in the local remotes; return their paths."""
    bare = data.bare("x").parent
    whole = (repository for repository in bare.glob("*.git") if not mao_git.is_unfinished(repository.name))
    return [lock for repository in whole for lock in mao_git.sweep_locks(repository, STALE_LOCK_SECONDS)]


def clone_remote_url(context: Context, name: str) -> str:
    """Return the URL of a clone's remote. Raises NotFound."""
    return Clone.open(context.data.clone(name)).url


def set_aside(context: Context, name: str) -> SetAside:
    """Move a clone and its worktree aside, the clone last. Raises NotFound.

    A kill in between leaves the clone where it was.
    """
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
    """Check that a repository can be a dataset's remote.

    Raises InvalidInput (`dataset-url-refused`, `dataset-unreachable`), Forbidden and RemoteUnavailable.
    """
    mao_git.check_url(master)
    with Clone.scratch(context.data.clone("check").parent, master) as clone:
        branch = clone.default_branch(context.access)
        clone.check_pushable(context.access)
    return RemoteState(master=master, default_branch=branch)


def with_lfs_content(context: Context, clone: Clone, commit: str, call: Callable[[], T]) -> T:
    """Call a function that reads files of a commit; if large files are missing, fetch them and call it again.

    That the remote lacks some content is reported only for content that the call reads.
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
