"""Reproduces a step on its original commits, and compares its output instead of publishing it. Blocking."""

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
from mao_datamgmt.digests import content_digest
from mao_git import CheckoutOptions, Clone, blob_hash
from mao_shared.errors import NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models import DatasetRef, Original, Reproduced, Run, StepRun

from . import output, publish, workspaces
from .output import Baseline, FoundFile, OutputChanges, Stamp, find_changes, make_stamp
from .prepare import PreparedStep, checkout_commit

MAX_LISTED = 1000  # paths of one kind in a run's document
_READ_SIZE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's content as its git id and, as in Git LFS, its SHA-256."""

    id: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """The outputs of two executions by path, None if absent. `lfs` maps a pointer's id to its SHA-256."""

    reproductions: Mapping[str, FileDigest | None]
    originals: Mapping[str, str | None]
    lfs: Mapping[str, str] = field(default_factory=dict)


def prepare_reproduction(context: Context, step: StepRun, target: Workspace) -> PreparedStep:
    """Check out the commits that the original step read; fetch only if one is missing.

    Raises NotFound (`commit-missing`) if a commit cannot be found, and the errors of `sync_clone`.
    """
    base, spec = step.base_commit or "", step.spec
    output = _clone_with(context, spec.output, base)
    source = None if spec.input is None else _clone_with(context, spec.input, step.input_commit or "")

    def fill(workspace: Workspace) -> dict[str, Stamp]:
        if source is not None and step.input_commit is not None:
            checkout_commit(
                context, source, step.input_commit, workspace.input, CheckoutOptions(read_only=True)
            )
        statuses = checkout_commit(
            context, output, base, workspace.data, CheckoutOptions(owner=context.owner)
        )
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
        next=f"List the dataset's commits: maoctl dataset log {dataset}",
    )


def compare_output(context: Context, run: Run, step: StepRun, workspace: Workspace) -> Reproduced:
    """Compare the tool's output with the original's snapshot.

    Raises InvalidInput (`output-…`) for output that would be refused, NotFound (`commit-missing`).
    """
    if run.reproduces is None:
        raise ValueError(f"run {run.id} is not a reproduction")
    clone = Clone.open(context.data.clone(step.spec.output.name))
    original = _snapshot(context, clone, run.reproduces, step.spec.output)
    limits = publish.output_limits(context, step.spec.output)
    baseline = workspaces.read_seal(workspace.root) or Baseline({}, 0)
    scanned = output.scan_folder(workspace.data, limits, baseline.files, baseline.sealed_at)
    changes = find_changes(baseline, scanned.files, scanned.same)
    read = {found.path: _content(workspace.data, found) for found in changes.written}
    base = step.base_commit or ""
    output.check_links(*_links(clone, base, changes, read))
    untouched = {found.path for found in changes.written if baseline.files.get(found.path) == found.stamp}
    base_ids = clone.blob_ids(base, untouched)
    reproductions: dict[str, FileDigest | None] = dict.fromkeys(changes.removed)
    pointers = _pointers(clone, {*base_ids.values()})
    reproductions |= {
        path: digest for path, digest in read.items() if not _same(digest, base_ids.get(path), pointers)
    }
    for found in changes.written:
        if is_attributes(found.path) and found.path in reproductions and found.link is None:
            with output.open_file(workspace.data, found) as stream:
                blob_id = _id_without_lines(stream.read())
            reproductions[found.path] = None if blob_id is None else FileDigest(blob_id)
    return summarize(_compare(clone, base, original, reproductions))


def _links(
    clone: Clone, base: str, changes: OutputChanges, read: Mapping[str, FileDigest]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the links that the published commit would have, and those of the base commit.

    A link that was checked out as a file with its target as text, and is unchanged, remains a link.
    """
    baseline = clone.links(base)
    ids = clone.blob_ids(base, baseline)
    current = {path: target for path, target in baseline.items() if path not in changes.removed}
    for found in changes.written:
        if found.link is not None:
            current[found.path] = found.link
        elif found.path in current and read[found.path].id != ids.get(found.path):
            del current[found.path]
    return current, baseline


def _snapshot(context: Context, clone: Clone, original: Original, output: DatasetRef) -> str:
    """Return the original's commit, or the new one if it was replayed."""
    if clone.has_commit(original.snapshot):
        return original.snapshot
    matches = partial(provenance.is_snapshot_of, run_id=original.run, step=original.step)
    tip = clone.tip(context.node)
    replayed = None if tip is None else clone.find_commit(tip, None, matches)
    if replayed is None:
        raise _commit_missing(output.name, original.snapshot)
    return replayed


def _compare(
    clone: Clone, base: str, original: str, reproductions: dict[str, FileDigest | None]
) -> OutputComparison:
    """Return both outputs at every path that either changed; an unchanged one is that of the base."""
    changed = clone.changed_files(clone.parent(original), original)
    originals: dict[str, str | None] = {**changed.files, **dict.fromkeys(changed.removed)}
    for path in [path for path in originals.keys() - reproductions.keys() if is_attributes(path)]:
        del originals[path]  # written by MAO for LFS, not by the tool
    originals.pop(mao_git.lfs.MARK, None)
    paths = reproductions.keys() | originals.keys()
    baseline = clone.blob_ids(base, paths)
    for path in (
        paths - reproductions.keys()
    ):  # with the digest of what looks like a pointer: publishing may move it to LFS
        reproductions[path] = (
            FileDigest(blob, hashlib.sha256(clone.small_blob(blob)).hexdigest())
            if (blob := baseline.get(path))
            else None
        )
    originals = {path: originals[path] if path in originals else baseline.get(path) for path in paths}
    for path in filter(is_attributes, paths):
        found = originals[path]
        originals[path] = None if found is None else _id_without_lines(clone.read_blob(found))
    unequal = {originals[path] or "" for path in paths if not _same(reproductions[path], originals[path], {})}
    return OutputComparison(reproductions, originals, _pointers(clone, unequal - {""}))


def is_attributes(path: str) -> bool:
    """True if the path is a `.gitattributes` file, which may contain lines written by MAO."""
    return path.rpartition("/")[2] == mao_git.lfs.ATTRIBUTES


def _id_without_lines(attributes: bytes) -> str | None:
    """Return the id of an attributes file without MAO's lines, or None if it is then empty."""
    data = mao_git.attributes.without_lines(attributes)
    return _blob_id(data) if data else None


def _blob_id(data: bytes) -> str:
    digest = blob_hash(len(data))
    digest.update(data)
    return digest.hexdigest()


def _pointers(clone: Clone, ids: set[str]) -> dict[str, str]:
    pointers = ((blob, mao_git.lfs.parse_pointer(clone.small_blob(blob))) for blob in ids)
    return {blob: pointer.oid for blob, pointer in pointers if pointer is not None}


def summarize(comparison: OutputComparison) -> Reproduced:
    """Count and list identical, different, missing and extra paths. Pure."""
    different, missing, extra, identical = [], [], [], 0
    for path in sorted(comparison.reproductions):
        reproductions, originals = comparison.reproductions[path], comparison.originals[path]
        if _same(reproductions, originals, comparison.lfs):
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
    with output.open_file(folder, found) as stream:
        measured = content_digest(found.size, iter(partial(stream.read, _READ_SIZE), b""))
    return FileDigest(measured.blob, measured.sha256)
