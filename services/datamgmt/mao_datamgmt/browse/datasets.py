"""Status, history, folders and files of datasets. Blocking."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones, quarantine
from mao_datamgmt.datasets.broken import broken_clones
from mao_datamgmt.datasets.clones import dataset_names
from mao_datamgmt.datasets.push import PushFailure, outbox_status
from mao_git import Clone, FileEntry, LogEntry, RepositoryError
from mao_git.ssh_signatures import signing_key
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import GROUND_TRUTH, Listing
from mao_shared.models.check import quarantine_branch
from mao_shared.models.dataset import BranchStatus, CommitInfo, DatasetStatus, FileInfo, Outbox
from mao_shared.store.protocol import cursor_invalid


def dataset_status(context: Context, name: str, failed: PushFailure | None = None) -> DatasetStatus:
    """Return a dataset's status. Raises NotFound if this node has no clone of it, not even a broken one."""
    broken = broken_clones(context, name)
    try:
        clone = Clone.open(context.data.clone(name))
    except NotFound:
        if not broken:
            raise
        last = broken[-1]
        outbox = Outbox(state="waiting", code="clone-broken", detail=last.detail, next=last.next)
        return DatasetStatus(
            name=last.dataset,
            master=last.url or "",
            branches=[],
            unpushed=0,
            failure=last.detail,
            outbox=outbox,
            size=0,
            broken_clones=broken,
        )
    local = clone.list_branches()
    names = sorted(clone.list_branches(remote=True).keys() | local.keys())
    branches = [_branch(context, clone, branch, local) for branch in names]
    return DatasetStatus(
        name=name,
        master=clone.url,
        branches=branches,
        unpushed=sum(branch.unpushed for branch in branches),
        failure=None if failed is None else failed.failure.detail,
        outbox=outbox_status(clone, context.node, failed),
        size=_size(clone.path),
        broken_clones=broken,
        quarantined=quarantine.count_waiting(context, clone),
    )


def _branch(context: Context, clone: Clone, name: str, local: dict[str, str]) -> BranchStatus:
    tip = clone.resolve(name)
    entry = clone.log(tip, 1)[0][0]
    is_local = name in local
    unpushed = 0
    if name == quarantine_branch(context.node):
        unpushed = quarantine.count_unpushed(context, clone)
    elif is_local:
        unpushed = clone.unpushed(name).commits
    return BranchStatus(
        name=name,
        commit=tip,
        time=entry.time,
        subject=provenance.commit_subject(entry.message),
        here=is_local,
        unpushed=unpushed,
    )


def _size(folder: Path) -> int:
    """Return the total size in bytes of the files below a folder; some may be removed meanwhile."""
    total = 0
    for prefix, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(prefix) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def list_statuses(
    context: Context, failures: Mapping[str, PushFailure], limit: int, cursor: str | None
) -> Listing[DatasetStatus]:
    """List the status of the datasets that have a clone on this node, by name."""
    known = {*dataset_names(context.data), *(clone.dataset for clone in broken_clones(context))}
    names = [name for name in sorted(known) if cursor is None or name > cursor]
    items = []
    for name in names[:limit]:
        try:
            status = dataset_status(context, name, failures.get(name))
        except (MaoError, RepositoryError, OSError) as error:  # a broken clone must not hide the others
            detail = f"The clone of dataset {name} cannot be read: {error}"
            next_step = f"It is repaired automatically; see: maoctl dataset get {name}"
            outbox = Outbox(state="waiting", code="clone-broken", detail=detail, next=next_step)
            status = DatasetStatus(
                name=name, master="", branches=[], unpushed=0, failure=detail, outbox=outbox, size=0
            )
        items.append(status)
    return Listing(items=items, cursor=names[limit - 1] if len(names) > limit else None)


def list_commits(
    context: Context, name: str, branch: str | None, limit: int, cursor: str | None
) -> Listing[CommitInfo]:
    """List the commits of a branch (default: this node's), newest first. `cursor` is a commit id."""
    clone = Clone.open(context.data.clone(name))
    start = clone.resolve(cursor or branch or context.node)
    entries, following = clone.log(start, limit)
    return Listing(items=[_commit(entry) for entry in entries], cursor=following)


def _commit(entry: LogEntry) -> CommitInfo:
    marks = provenance.trailers(entry.message)
    return CommitInfo(
        commit=entry.commit,
        parents=entry.parents,
        author=entry.author,
        email=entry.email,
        time=entry.time,
        subject=provenance.commit_subject(entry.message),
        message=entry.message,
        run=marks.get("MAO-Run"),
        step=marks.get("MAO-Step"),
        signing_key=None if entry.signature is None else signing_key(entry.signature) or "of another kind",
    )


def list_files(
    context: Context,
    name: str,
    ref: str | None,
    path: str,
    limit: int,
    cursor: str | None,
    *,
    details: bool = False,
) -> Listing[FileInfo]:
    """List a folder in git's order. `cursor` is the name of the last entry of the previous page.

    With `details` also how many entries folders have, and which commits changed what last.
    """
    clone = Clone.open(context.data.clone(name))
    commit = clone.resolve(ref or GROUND_TRUTH)
    entries = clone.list_files(commit, path)
    names = [mao_git.paths.printable(entry.name) for entry in entries]
    if cursor is not None and cursor not in names:
        raise cursor_invalid()
    start = 0 if cursor is None else names.index(cursor) + 1
    page = entries[start : start + limit]
    more = len(entries) > start + limit
    prefix = "".join(f"{part}/" for part in path.split("/") if part)
    items = [_file(prefix, entry) for entry in page]
    if details:
        changes = clone.last_changes(commit, path)
        for entry, item in zip(page, items, strict=True):
            item.entries = clone.count_entries(entry.id) if entry.kind == "folder" else None
            if (change := changes.get(entry.name)) is not None:
                item.changed_at, item.changed_in = change.time, change.commit
    return Listing(
        items=items,
        cursor=names[start + limit - 1] if more and page else None,
    )


def _file(prefix: str, entry: FileEntry) -> FileInfo:
    return FileInfo(
        name=mao_git.paths.printable(entry.name),
        path=mao_git.paths.printable(prefix + entry.name),
        kind=entry.kind,
        size=entry.size,
        id=entry.id,
        executable=entry.executable,
    )


def open_content(context: Context, name: str, ref: str | None, path: str) -> mao_git.ContentStream:
    """Open a file for reading in pieces; the content of a link is its target."""
    clone = Clone.open(context.data.clone(name))
    commit = clone.resolve(ref or GROUND_TRUTH)
    return clones.with_lfs_content(context, clone, commit, lambda: clone.open_file(commit, path))
