"""A step run again on its original commits, and compared instead of published. Blocking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import sync_clone
from mao_git import CheckoutOptions, Clone, blob_hash
from mao_shared.errors import NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models import DatasetRef, Original, Reproduced, Run, StepRun

from . import output, publish, workspaces
from .output import Baseline, FoundFile, OutputChanges, Stamp, find_changes, make_stamp
from .prepare import PreparedStep, checkout_whole

MAX_LISTED = 1000  # paths of one kind in a run's document
_READ_SIZE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's content as its git id and, as in Git LFS, its SHA-256."""

    id: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """The outputs of two executions, by path; None: absent. `lfs`: pointer's id → SHA-256 of its content."""

    reproductions: Mapping[str, FileDigest | None]
    originals: Mapping[str, str | None]
    lfs: Mapping[str, str] = field(default_factory=dict)


def prepare_reproduction(context: Context, step: StepRun, target: Workspace) -> PreparedStep:
    """Check out the commits that the original step was given; fetch only if one is missing.

    Raises NotFound (`commit-missing`) when a commit is nowhere, and what `clones.sync_clone` raises.
    """
    base, spec = step.base_commit or "", step.spec
    output = _clone_with(context, spec.output, base)
    source = None if spec.input is None else _clone_with(context, spec.input, step.input_commit or "")

    def fill(workspace: Workspace) -> dict[str, Stamp]:
        if source is not None and step.input_commit is not None:
            checkout_whole(
                context, source, step.input_commit, workspace.input, CheckoutOptions(read_only=True)
            )
        statuses = checkout_whole(context, output, base, workspace.data, CheckoutOptions(owner=context.owner))
        return {path: make_stamp(status) for path, status in statuses.items()}

    workspaces.create(target, context.owner, fill)
    return PreparedStep(base, step.input_commit, {})


def _clone_with(context: Context, dataset: DatasetRef, commit: str) -> Clone:
    """Return a clone that has the commit, fetching if necessary."""
    try:
        clone = Clone.open(context.data.clone(dataset.name))
    except NotFound:
        clone = sync_clone(context, dataset.name, dataset.master).clone
    if not clone.has_commit(commit):
        clone = sync_clone(context, dataset.name, dataset.master).clone
    if not clone.has_commit(commit):
        raise _commit_missing(dataset.name, commit)
    return clone


def _commit_missing(dataset: str, commit: str) -> NotFound:
    return NotFound(
        f"The commit {commit[:10] or '(none)'} of dataset {dataset!r} is neither here nor at its remote.",
        code="commit-missing",
        next=f"See what the dataset has: maoctl dataset log {dataset}",
    )


def compare_output(context: Context, run: Run, step: StepRun, workspace: Workspace) -> Reproduced:
    """Compare what the tool left now with the original's snapshot.

    Raises InvalidInput (`output-…`) for output that would be refused, NotFound (`commit-missing`).
    """
    if run.reproduces is None:
        raise ValueError(f"run {run.id} is not a reproduction")
    clone = Clone.open(context.data.clone(step.spec.output.name))
    original = _snapshot(context, clone, run.reproduces, step.spec.output)
    limits = publish.output_limits(context, step.spec.output)
    before = workspaces.read_seal(workspace.root) or Baseline({}, 0)
    seen = output.scan_folder(workspace.data, limits, before.files, before.sealed_at)
    changes = find_changes(before, seen.files, seen.same)
    read = {found.path: _content(workspace.data, found) for found in changes.written}
    base = step.base_commit or ""
    output.check_links(*_links(clone, base, changes, read))
    left_alone = {found.path for found in changes.written if before.files.get(found.path) == found.stamp}
    as_before = clone.blob_ids(base, left_alone)
    reproductions: dict[str, FileDigest | None] = dict.fromkeys(changes.removed)
    pointers = _pointers(clone, {*as_before.values()})
    reproductions |= {
        path: digest for path, digest in read.items() if not _same(digest, as_before.get(path), pointers)
    }
    for found in changes.written:
        if is_attributes(found.path) and found.path in reproductions and found.link is None:
            with output.open_file(workspace.data, found) as stream:
                own = _id_without_lines(stream.read())
            reproductions[found.path] = None if own is None else FileDigest(own)
    return judge(_compare(clone, base, original, reproductions))


def _links(
    clone: Clone, base: str, changes: OutputChanges, read: Mapping[str, FileDigest]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the links that publishing would have left, and those of the commit before.

    One that was checked out as a file with its target as text and still is that file stays a link.
    """
    before = clone.links(base)
    ids = clone.blob_ids(base, before)
    now = {path: target for path, target in before.items() if path not in changes.removed}
    for found in changes.written:
        if found.link is not None:
            now[found.path] = found.link
        elif found.path in now and read[found.path].id != ids.get(found.path):
            del now[found.path]
    return now, before


def _snapshot(context: Context, clone: Clone, original: Original, output: DatasetRef) -> str:
    """Return the original's commit; if it was replayed since, the new one."""
    if clone.has_commit(original.snapshot):
        return original.snapshot
    matches = partial(provenance.is_snapshot_of, run_id=original.run, step=original.step)
    tip = clone.tip(context.node)
    again = None if tip is None else clone.find_commit(tip, None, matches)
    if again is None:
        raise _commit_missing(output.name, original.snapshot)
    return again


def _compare(
    clone: Clone, base: str, original: str, reproductions: dict[str, FileDigest | None]
) -> OutputComparison:
    """Return both sides at every path that either changed; an unchanged side is as before."""
    changed = clone.changed_files(clone.parent(original), original)
    originals: dict[str, str | None] = {**changed.files, **dict.fromkeys(changed.removed)}
    for path in [path for path in originals.keys() - reproductions.keys() if is_attributes(path)]:
        del originals[path]  # written by us for LFS, and by no tool
    originals.pop(mao_git.lfs.MARK, None)
    paths = reproductions.keys() | originals.keys()
    before = clone.blob_ids(base, paths)
    for path in (
        paths - reproductions.keys()
    ):  # with the digest of what looks like a pointer: publishing may move it to LFS
        reproductions[path] = (
            FileDigest(blob, hashlib.sha256(clone.small_blob(blob)).hexdigest())
            if (blob := before.get(path))
            else None
        )
    originals = {path: originals[path] if path in originals else before.get(path) for path in paths}
    for path in filter(is_attributes, paths):
        found = originals[path]
        originals[path] = None if found is None else _id_without_lines(clone.read_blob(found))
    unequal = {originals[path] or "" for path in paths if not _same(reproductions[path], originals[path], {})}
    return OutputComparison(reproductions, originals, _pointers(clone, unequal - {""}))


def is_attributes(path: str) -> bool:
    """Return whether the path is a `.gitattributes` file, which may have lines of ours."""
    return path.rpartition("/")[2] == mao_git.lfs.ATTRIBUTES


def _id_without_lines(attributes: bytes) -> str | None:
    """Return the id of an attributes file without our lines, or None if nothing is left."""
    data = mao_git.attributes.without_lines(attributes)
    return _blob_id(data) if data else None


def _blob_id(data: bytes) -> str:
    digest = blob_hash(len(data))
    digest.update(data)
    return digest.hexdigest()


def _pointers(clone: Clone, ids: set[str]) -> dict[str, str]:
    pointers = ((blob, mao_git.lfs.parse_pointer(clone.small_blob(blob))) for blob in ids)
    return {blob: pointer.oid for blob, pointer in pointers if pointer is not None}


def judge(compared: OutputComparison) -> Reproduced:
    """Count and list identical, different, missing and extra paths. Pure."""
    different, missing, extra, identical = [], [], [], 0
    for path in sorted(compared.reproductions):
        reproductions, originals = compared.reproductions[path], compared.originals[path]
        if _same(reproductions, originals, compared.lfs):
            identical += reproductions is not None
        elif reproductions is None:
            missing.append(path)
        elif originals is None:
            extra.append(path)
        else:
            different.append(path)
    unlisted = sum(max(0, len(paths) - MAX_LISTED) for paths in (different, missing, extra))
    return Reproduced(
        identical=identical,
        different=different[:MAX_LISTED],
        missing=missing[:MAX_LISTED],
        extra=extra[:MAX_LISTED],
        unlisted=unlisted,
    )


def _same(reproductions: FileDigest | None, originals: str | None, lfs: Mapping[str, str]) -> bool:
    if reproductions is None or originals is None:
        return reproductions is None and originals is None
    return reproductions.id == originals or (originals in lfs and lfs[originals] == reproductions.sha256)


def _content(folder: Path, found: FoundFile) -> FileDigest:
    if found.link is not None:
        return FileDigest(_blob_id(found.link.encode()))
    git = blob_hash(found.size)
    plain = hashlib.sha256()
    with output.open_file(folder, found) as stream:
        while piece := stream.read(_READ_SIZE):
            git.update(piece)
            plain.update(piece)
    return FileDigest(git.hexdigest(), plain.hexdigest())
