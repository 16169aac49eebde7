"""Publishes a step's output: checks it, commits it to the node's branch exactly once, pushes it. Blocking.

A commit may be repeated at any point: an existing commit of the step is searched first. In a
dataset that declares Git LFS, large files are stored with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.checks.runner import CheckTask, run_checks
from mao_datamgmt.context import Context, OutputLimits
from mao_datamgmt.datasets import quarantine
from mao_datamgmt.datasets.delivery import branch_conflict, push_branches
from mao_datamgmt.disk import require_space
from mao_datamgmt.provenance import Digests, WrittenFiles
from mao_git import Clone, Content, InvalidPath, MergeConflict, RepositoryError
from mao_git.attributes import Texts
from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models import GROUND_TRUTH, DatasetRef, Point, Run, StepRun
from mao_shared.models.check import (
    CheckResult,
    failed_checks_text,
    results_from_record,
    strongest_reaction,
)

from . import output, workspaces, worktrees
from .output import Baseline, FoundFile, OutputChanges, find_changes

MAX_ATTRIBUTES_BYTES = 32 << 20  # a line for each large file has about 80 bytes

_NO_STAMP = (0, 0, 0, 0)  # matches no file


@dataclass(frozen=True, slots=True)
class Committed:
    """A step's commit, with the results of its checks. `quarantined`: it is on the quarantine branch."""

    commit: str
    checks: list[CheckResult] = field(default_factory=list)
    quarantined: bool = False


class CheckFailed(InvalidInput):
    """A check that blocks has failed. `results`: of all checks of the step."""

    default_code = "check-failed"

    def __init__(self, results: list[CheckResult]) -> None:
        super().__init__(
            f"The output failed a check and is not published: {failed_checks_text(results)}.",
            next="The output is kept in the run's workspace. If it is right after all, change the check: "
            "'on_failure: warn' publishes it all the same, 'quarantine' lets you accept it.",
        )
        self.results = results


@dataclass(frozen=True, slots=True)
class Published:
    """A published step. `pushed`: the remote has the snapshot; `failure`: why it lacks a branch."""

    snapshot: str
    ground_truth: str | None
    failure: MaoError | None
    pushed: bool


def commit_output(
    context: Context, run: Run, step: StepRun, workspace: Workspace, points: Mapping[str, Sequence[Point]]
) -> Committed | None:
    """Check a step's output and commit it; return None if it is empty and may be.

    It is committed to the node's branch, or to the quarantine branch if a check says so. `points`: of the
    step's metrics so far, oldest first.

    Raises InvalidInput (`output-…`) for output that is refused or missing, CheckFailed for output that a
    check blocks, MaoError (`output-conflict`) if the branch has changed in the same files since the workspace
    was created, and Unavailable (`disk-full`) if the commit would not leave MAO_MIN_FREE.
    """
    clone = Clone.open(context.data.clone(step.spec.output.name))
    existing = find_committed(context, clone, run, step)
    if existing is not None:
        return existing
    step, baseline = _with_baseline(context, clone, step, workspace)
    limits = output_limits(context, step.spec.output)
    scanned = output.scan_folder(workspace.data, limits, baseline.files, baseline.sealed_at)
    changes = find_changes(baseline, scanned.files, scanned.same)
    base = clone.tree(step.base_commit)
    if not changes.touched:
        if step.spec.allow_empty:
            worktrees.record_published(context, workspace, base, changes)
            return None
        raise output_missing(step)
    sizes = [file.size for file in changes.written]
    require_space(
        context, sum(sizes) + max(sizes, default=0)
    )  # a large file exists twice while it is written
    contents = tree_contents(clone, base, changes, workspace.data, limits)
    digests = Digests()
    try:
        tree = clone.write_tree(base, digests.watch(contents))
    except InvalidPath as error:
        raise output.refused(str(error), "cannot be kept") from error
    output.check_links(clone.links(tree), clone.links(base))
    texts = lfs_texts(clone, base, tree, contents)
    tree = clone.write_texts(tree, texts)
    texts.pop(mao_git.lfs.MARK, None)  # tools and records do not contain it
    for path, text in texts.items():
        digests.note(path, text)
    worktrees.record_published(
        context, workspace, tree, changes, altered=frozenset({*texts, mao_git.lfs.MARK})
    )
    changed_paths = {file.path for file in changes.written if baseline.files.get(file.path) != file.stamp}
    written = digests.written(changed_paths, clone.changed_files(base, tree))
    results = _check(clone, step, tree, base, points, context.clock.now())
    reaction, checked = strongest_reaction(results), step.model_copy(update={"checks": results})
    if reaction == "block":
        raise CheckFailed(results)
    if reaction == "quarantine":
        message = _message(context, run, checked, written)
        start = step.base_commit or clone.commit(base, [], "Begin the dataset\n", context.author())
        commit = quarantine.append(context, clone, tree, start, message)
        return Committed(commit, results, quarantined=True)
    return Committed(_commit(context, clone, run, checked, tree, written), results)


def _with_baseline(
    context: Context, clone: Clone, step: StepRun, workspace: Workspace
) -> tuple[StepRun, Baseline]:
    """Return what the output is compared with, and the step with the commit that this is."""
    if step.base_commit is not None and not clone.has_commit(step.base_commit):
        # Lost with a broken clone: commit the whole folder on top of the current branch.
        step = step.model_copy(update={"base_commit": clone.latest_tip(context.node)})
        return step, _baseline_without_seal(clone, step.base_commit)
    sealed = workspaces.read_seal(workspace.root)
    return step, sealed or _baseline_without_seal(clone, step.base_commit)


def _check(
    clone: Clone,
    step: StepRun,
    tree: str,
    base: str,
    points: Mapping[str, Sequence[Point]],
    moment: datetime,
) -> list[CheckResult]:
    spec = step.spec
    if not spec.checks:
        return []
    task = CheckTask(
        repository=clone.path,
        tree=tree,
        base=base,
        checks=spec.checks,
        metrics=spec.metrics,
        points={name: list(known) for name, known in points.items()},
        moment=moment,
    )
    return run_checks(task)


def _baseline_without_seal(clone: Clone, base: str | None) -> Baseline:
    """Return the baseline if the seal is lost: every file counts as changed."""
    paths = clone.list_paths(base) if base is not None else []
    return Baseline(dict.fromkeys(paths, _NO_STAMP), 0)


def _commit(context: Context, clone: Clone, run: Run, step: StepRun, tree: str, written: WrittenFiles) -> str:
    base, tip = step.base_commit, clone.tip(context.node)
    if tip is not None and base is not None and tip != base:
        try:
            tree = clone.merge_trees(base, tip, tree)
        except MergeConflict as conflict:
            raise output_conflict(conflict) from conflict
    message = _message(context, run, step, written)
    parents = [] if tip is None else [tip]
    commit = clone.commit(tree, parents, message, context.author())
    if not clone.move_branch(context.node, commit, tip):
        raise mao_git.errors.branch_busy(context.node)
    return commit


def _message(context: Context, run: Run, step: StepRun, written: WrittenFiles) -> str:
    versions = {"libgit2": mao_git.libgit2_version()}
    return provenance.commit_message(run, with_actual_input(context, step), written, versions)


def with_actual_input(context: Context, step: StepRun) -> StepRun:
    """Return the step with the branch from which its input was read, for the snapshot's record.

    Without a ground truth, `prepare` reads this node's branch although the step names ground truth.
    """
    source, commit = step.spec.input, step.input_commit
    if source is None or commit is None or not step.spec.reads_truth:
        return step
    clone = Clone.open(context.data.clone(source.name))
    truth, own = (clone.latest_tip(name) for name in (source.branch, context.node))
    if truth is not None and clone.contains(truth, commit):
        return step
    if own is None or not clone.contains(own, commit):
        return step
    spec = step.spec.model_copy(update={"input": source.model_copy(update={"branch": context.node})})
    return step.model_copy(update={"spec": spec})


def committed_snapshot(context: Context, run: Run, step: StepRun) -> Committed | None:
    """Return the commit that this step has already made, or None if the clone cannot be read."""
    try:
        clone = Clone.open(context.data.clone(step.spec.output.name))
        return find_committed(context, clone, run, step)
    except (NotFound, mao_git.CloneBroken, RepositoryError):
        return None


def find_committed(context: Context, clone: Clone, run: Run, step: StepRun) -> Committed | None:
    """Return the commit that this step has already made, on either branch, with the recorded results."""
    existing = find_snapshot(context, clone, run, step)
    if existing is not None:
        if not step.spec.checks:
            return Committed(existing)
        message = clone.log(existing, 1)[0][0].message
        return Committed(existing, results_from_record(provenance.read_step_record(message)))
    if not step.spec.checks:
        return None
    held = quarantine.find_snapshot(context, clone, run.id, step.spec.name)
    if held is None:
        return None
    return Committed(
        held.commit, results_from_record(provenance.read_step_record(held.message)), quarantined=True
    )


def find_snapshot(context: Context, clone: Clone, run: Run, step: StepRun) -> str | None:
    """Return the commit that this step has already made, or None."""
    tip = clone.tip(context.node)
    if tip is None:
        return None
    matches = partial(provenance.is_snapshot_of, run_id=run.id, step=step.spec.name)
    return clone.find_commit(tip, step.base_commit, matches)


def push_output(context: Context, run: Run, step: StepRun, commit: str, *, promote: bool) -> Published:
    """Push the commit of a step. Raises MaoError (`output-conflict`) if it conflicts with the remote."""
    clone = Clone.open(context.data.clone(step.spec.output.name))
    if not clone.has_commit(commit) and find_snapshot(context, clone, run, step) is None:
        raise mao_git.CloneBroken.of(step.spec.output.name, f"it has lost the commit {commit[:10]}")
    try:
        delivery = push_branches(context, clone, promote=promote)
    except MergeConflict as conflict:
        if conflict.commit == commit and withdraw(context, clone, commit):
            raise output_conflict(conflict) from conflict
        return Published(commit, None, branch_conflict(clone, conflict), pushed=False)
    snapshot = find_snapshot(context, clone, run, step) or commit
    truth = delivery.ground_truth if promote else None
    return Published(snapshot, truth, delivery.failure, delivery.observed)


def push_quarantined(context: Context, step: StepRun, commit: str, *, promote: bool) -> MaoError | None:
    """Push the quarantine branch of a step's dataset with the others; return why that failed, or None."""
    clone = Clone.open(context.data.clone(step.spec.output.name))
    if not clone.has_commit(commit):
        raise mao_git.CloneBroken.of(step.spec.output.name, f"it has lost the commit {commit[:10]}")
    try:
        return push_branches(context, clone, promote=promote).failure
    except MergeConflict as conflict:
        return branch_conflict(clone, conflict)


def withdraw(context: Context, clone: Clone, commit: str) -> bool:
    """Remove a commit that cannot be published, if it is the tip of the node's branch."""
    parent = clone.parent(commit)
    if parent is None or not clone.move_branch(context.node, parent, commit):
        return False
    clone.reset_to_remote(GROUND_TRUTH)
    return True


def output_missing(step: StepRun) -> InvalidInput:
    """Return the error for a tool that succeeded and changed no file."""
    return InvalidInput(
        "The tool succeeded but wrote nothing to its data folder.",
        code="output-missing",
        next=f"Check where it writes: maoctl tool check {step.spec.image.name}. If a run without output is "
        "fine, set 'allow_empty' on the step.",
    )


def output_conflict(conflict: MergeConflict) -> MaoError:
    """Return the error for output whose files somebody else changed on the node's branch."""
    paths = ", ".join(conflict.paths[:5]) or "its history"
    return MaoError(
        f"The node's branch was changed elsewhere in the same files ({paths}); the output is not published.",
        code="output-conflict",
        next="Only this node should push to its branch. The output is kept in the run's workspace; run it "
        "again to build on the new state.",
    )


def output_limits(context: Context, output: DatasetRef) -> OutputLimits:
    """Return the limits of a step's output, with the dataset's setting for large files."""
    return replace(context.limits, lfs_above=output.lfs_above)


def tree_contents(
    clone: Clone, base: str, changes: OutputChanges, folder: Path, limits: OutputLimits
) -> dict[str, Content | None]:
    """Return a tool's changes as changes of the tree `base`.

    With the first large file, older files that look like LFS pointers are stored with LFS as well, since from
    then on every such file is read as a pointer.
    """
    contents: dict[str, Content | None] = {path: None for path in changes.removed if path != mao_git.lfs.MARK}
    in_use = clone.uses_lfs(base)
    active = in_use or limits.lfs_above is not None
    for found in changes.written:
        if found.path == mao_git.lfs.MARK:
            continue  # written by MAO only
        if found.path.startswith(f"{mao_git.lfs.MARK}/"):
            raise output.refused(found.path, f"is below {mao_git.lfs.MARK}, which is reserved for MAO")
        if found.path == mao_git.lfs.ATTRIBUTES:
            _check_attributes(found, folder, active)
        contents[found.path] = _content(found, folder, limits, active)
    if not in_use and any(content is not None and content.lfs for content in contents.values()):
        contents = _pointer_like_files(clone, base) | contents
    return contents


def _pointer_like_files(clone: Clone, base: str) -> dict[str, Content | None]:
    """Return, as LFS content, the files of a tree that look like LFS pointers without being any."""
    found: dict[str, Content | None] = {}
    for path, pointer in clone.lfs_pointers(base).items():
        if not clone.has_lfs_content(pointer):
            entry = clone.entry(base, path)
            executable = entry is not None and entry.executable
            text = Content.of(pointer.text())
            found[path] = replace(text, lfs=True, executable=executable)
    return found


def lfs_texts(clone: Clone, base: str, tree: str, contents: Mapping[str, Content | None]) -> Texts:
    """Return the changes of MAO's own files that a tree needs.

    `contents` is the difference between `base` and `tree`.

    Raises InvalidInput (`output-refused`) if the tool wrote to their paths.
    """
    add = {path for path, content in contents.items() if content is not None and content.lfs}
    try:
        for path in add:
            mao_git.attributes.check_line(path)
        has_mark = mao_git.lfs.MARK in clone.blob_ids(base, [mao_git.lfs.MARK])
        keeps_mark = has_mark and mao_git.lfs.MARK in clone.blob_ids(tree, [mao_git.lfs.MARK])
        if keeps_mark and not any(path.rpartition("/")[2] == mao_git.lfs.ATTRIBUTES for path in contents):
            # Only MAO has changed the attributes since `base`, so they are still valid.
            texts = clone.lfs_attributes(tree, add, contents.keys() - add, whole=False)
            top = texts.get(mao_git.lfs.ATTRIBUTES, b"")
            if mao_git.lfs.ATTRIBUTES not in texts or (top and mao_git.attributes.has_lines(top)):
                return texts
            # MAO's last line was removed: check whether it was for the last pointer.
            return _rewritten_attributes(clone, tree, clone.lfs_pointers(tree).keys())
        if not (has_mark or add or clone.uses_lfs(base) or clone.has_any_lfs_content()):
            return {}
        existing = has_mark or bool(add) or clone.uses_lfs(base)
        found = clone.lfs_pointers(tree)
        pointers = {path for path, pointer in found.items() if existing or clone.has_lfs_content(pointer)}
        return _rewritten_attributes(clone, tree, pointers)
    except mao_git.LfsConflict as error:
        raise output.refused(error.path, str(error)) from error


def _rewritten_attributes(clone: Clone, tree: str, pointers: Collection[str]) -> Texts:
    texts = clone.lfs_attributes(tree, pointers, whole=True)
    return texts | clone.lfs_mark(tree, wanted=bool(pointers))


def _check_attributes(found: FoundFile, folder: Path, active: bool) -> None:
    """Raise InvalidInput (`output-refused`) for attributes that are too large, or that declare LFS."""
    if found.size > MAX_ATTRIBUTES_BYTES:
        raise output.refused(found.path, f"has {found.size} bytes, the limit is {MAX_ATTRIBUTES_BYTES}")
    if active or found.link is not None:
        return
    with output.open_file(folder, found) as stream:
        if b"filter=lfs" in stream.read():
            raise output.refused(found.path, "declares Git LFS, and the dataset's record does not")


def _content(found: FoundFile, folder: Path, limits: OutputLimits, active: bool) -> Content:
    if found.link is not None:
        return Content(link=found.link)
    open_content = partial(output.open_file, folder, found)
    is_for_lfs = limits.is_for_lfs(found.size)
    if not is_for_lfs and active and mao_git.lfs.may_be_pointer(found.size):
        with open_content() as stream:  # a file that looks like a pointer would be read as one
            is_for_lfs = mao_git.lfs.parse_pointer(stream.read()) is not None
    return Content(open_content, found.size, found.executable, lfs=is_for_lfs)
