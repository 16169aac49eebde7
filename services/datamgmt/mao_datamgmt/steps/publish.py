"""Publishing a step's output: judged, committed to the node's branch exactly once, pushed. Blocking.

Committing may be repeated at any point: the commit of a step is searched for before another is made. In a
dataset that declares Git LFS, large files go there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context, OutputLimits
from mao_datamgmt.datasets.delivery import branch_conflict, push_branches
from mao_datamgmt.disk import require_space
from mao_datamgmt.provenance import Digests, WrittenFiles
from mao_git import Clone, Content, InvalidPath, MergeConflict, RepositoryError
from mao_git.attributes import Texts
from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models import GROUND_TRUTH, DatasetRef, Run, StepRun

from . import output, workspaces, worktrees
from .output import Baseline, FoundFile, OutputChanges, find_changes

MAX_ATTRIBUTES_BYTES = 32 << 20  # bytes; a line for each large file has about 80

_NEVER = (0, 0, 0, 0)  # the stamp of no file


@dataclass(frozen=True, slots=True)
class Published:
    """A published step. `failure`: why the remote lacks something; `pushed`: it has the snapshot."""

    snapshot: str
    ground_truth: str | None
    failure: MaoError | None
    pushed: bool


def commit_output(context: Context, run: Run, step: StepRun, workspace: Workspace) -> str | None:
    """Commit a step's output to the node's branch; return None if it wrote nothing and may do so.

    Raises InvalidInput (`output-…`) for output that is refused or missing, MaoError (`output-conflict`) when
    the branch has changed in the same places since the workspace was created, and Unavailable (`disk-full`)
    when the commit would not leave MAO_MIN_FREE.
    """
    clone = Clone.open(context.data.clone(step.spec.output.name))
    known = find_snapshot(context, clone, run, step)
    if known is not None:
        return known
    if step.base_commit is not None and not clone.has_commit(step.base_commit):
        # It went with a broken clone: the folder is taken as a whole, on top of what the branch holds now.
        step = step.model_copy(update={"base_commit": clone.latest_tip(context.node)})
        before = _unsealed(clone, step.base_commit)
    else:
        before = workspaces.read_seal(workspace.root) or _unsealed(clone, step.base_commit)
    limits = output_limits(context, step.spec.output)
    seen = output.scan_folder(workspace.data, limits, before.files, before.sealed_at)
    changes = find_changes(before, seen.files, seen.same)
    base = clone.tree(step.base_commit)
    if not changes.touched:
        if step.spec.allow_empty:
            worktrees.record_published(context, workspace, base, changes)
            return None
        raise output_missing(step)
    sizes = [file.size for file in changes.written]
    require_space(context, sum(sizes) + max(sizes, default=0))  # a large file is there twice while written
    contents = tree_contents(clone, base, changes, workspace.data, limits)
    digests = Digests()
    try:
        tree = clone.write_tree(base, digests.watch(contents))
    except InvalidPath as error:
        raise output.refused(str(error), "cannot be kept") from error
    output.check_links(clone.links(tree), clone.links(base))
    texts = lfs_texts(clone, base, tree, contents)
    tree = clone.write_texts(tree, texts)
    texts.pop(mao_git.lfs.MARK, None)  # of which tools and records know nothing
    for path, text in texts.items():
        digests.note(path, text)
    worktrees.record_published(
        context, workspace, tree, changes, unlike=frozenset({*texts, mao_git.lfs.MARK})
    )
    touched = {file.path for file in changes.written if before.files.get(file.path) != file.stamp}
    written = digests.written(touched, clone.changed_files(base, tree))
    return _commit(context, clone, run, step, tree, written)


def _unsealed(clone: Clone, base: str | None) -> Baseline:
    """Return the baseline for a lost seal: every file counts as changed."""
    paths = clone.list_paths(base) if base is not None else []
    return Baseline(dict.fromkeys(paths, _NEVER), 0)


def _commit(context: Context, clone: Clone, run: Run, step: StepRun, tree: str, written: WrittenFiles) -> str:
    base, tip = step.base_commit, clone.tip(context.node)
    if tip is not None and base is not None and tip != base:
        try:
            tree = clone.merge_trees(base, tip, tree)
        except MergeConflict as conflict:
            raise output_conflict(conflict) from conflict
    versions = {"libgit2": mao_git.libgit2_version()}
    message = provenance.commit_message(run, as_read(context, step), written, versions)
    parents = [] if tip is None else [tip]
    commit = clone.commit(tree, parents, message, context.author())
    if not clone.move_branch(context.node, commit, tip):
        raise mao_git.errors.branch_busy(context.node)
    return commit


def as_read(context: Context, step: StepRun) -> StepRun:
    """Return the step with the branch that its input really came from, for the snapshot's record.

    Without any ground truth `prepare` takes this node's branch, while the agreed step names ground truth.
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


def committed_snapshot(context: Context, run: Run, step: StepRun) -> str | None:
    """Return the commit that this step has already made, or None if the clone cannot be read."""
    try:
        clone = Clone.open(context.data.clone(step.spec.output.name))
        return find_snapshot(context, clone, run, step)
    except (NotFound, mao_git.CloneBroken, RepositoryError):
        return None


def find_snapshot(context: Context, clone: Clone, run: Run, step: StepRun) -> str | None:
    """Return the commit that this step has already made, or None."""
    tip = clone.tip(context.node)
    if tip is None:
        return None
    matches = partial(provenance.is_snapshot_of, run_id=run.id, step=step.spec.name)
    return clone.find_commit(tip, step.base_commit, matches)


def push_output(context: Context, run: Run, step: StepRun, commit: str, *, promote: bool) -> Published:
    """Push the commit of a step; raise `output-conflict` if it conflicts with what the remote has."""
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


def withdraw(context: Context, clone: Clone, commit: str) -> bool:
    """Remove a commit that cannot be published from our branches, if it is the tip of the node's."""
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
    shown = ", ".join(conflict.paths[:5]) or "its history"
    return MaoError(
        f"The node's branch was changed elsewhere in the same files ({shown}); the output is not published.",
        code="output-conflict",
        next="Only this node should push to its branch. The output is kept in the run's workspace; run it "
        "again to build on what is there now.",
    )


def output_limits(context: Context, output: DatasetRef) -> OutputLimits:
    """Return the limits of a step's output, with the dataset's setting for large files."""
    return replace(context.limits, lfs_above=output.lfs_above)


def tree_contents(
    clone: Clone, base: str, changes: OutputChanges, folder: Path, limits: OutputLimits
) -> dict[str, Content | None]:
    """Return the changes that a tool made in its folder, as changes of the tree `base`.

    With the first large file, older files that look like pointers go to LFS as well: from then on everything
    that looks like a pointer is one.
    """
    contents: dict[str, Content | None] = {path: None for path in changes.removed if path != mao_git.lfs.MARK}
    in_use = clone.uses_lfs(base)
    active = in_use or limits.lfs_above is not None
    for found in changes.written:
        if found.path == mao_git.lfs.MARK:
            continue  # a tool has no say in it
        if found.path.startswith(f"{mao_git.lfs.MARK}/"):
            raise output.refused(found.path, f"is below {mao_git.lfs.MARK}, which is reserved for MAO")
        if found.path == mao_git.lfs.ATTRIBUTES:
            _check_attributes(found, folder, active)
        contents[found.path] = _content(found, folder, limits, active)
    if not in_use and any(content is not None and content.lfs for content in contents.values()):
        contents = _pointer_like_files(clone, base) | contents
    return contents


def _pointer_like_files(clone: Clone, base: str) -> dict[str, Content | None]:
    """Return the files of a tree that look like LFS pointers and are none, as content for LFS."""
    found: dict[str, Content | None] = {}
    for path, pointer in clone.lfs_pointers(base).items():
        if not clone.has_lfs_content(pointer):
            entry = clone.entry(base, path)
            executable = entry is not None and entry.executable
            text = Content.of(pointer.text())
            found[path] = replace(text, lfs=True, executable=executable)
    return found


def lfs_texts(clone: Clone, base: str, tree: str, contents: Mapping[str, Content | None]) -> Texts:
    """Return those of MAO's own files in a tree that have to change.

    `contents`: the difference between `base` and `tree`.

    Raises InvalidInput (`output-refused`) where the tool has put something in their place.
    """
    add = {path for path, content in contents.items() if content is not None and content.lfs}
    try:
        for path in add:
            mao_git.attributes.check_line(path)
        marked = mao_git.lfs.MARK in clone.blob_ids(base, [mao_git.lfs.MARK])
        kept = marked and mao_git.lfs.MARK in clone.blob_ids(tree, [mao_git.lfs.MARK])
        if kept and not any(path.rpartition("/")[2] == mao_git.lfs.ATTRIBUTES for path in contents):
            # Only MAO has changed the attributes since `base`, so what it wrote there still holds.
            texts = clone.lfs_attributes(tree, add, contents.keys() - add, whole=False)
            if texts.get(mao_git.lfs.ATTRIBUTES, b"") is not None:
                return texts
            # The last line is gone: was it for the last pointer?
            return _rewritten_attributes(clone, tree, clone.lfs_pointers(tree).keys())
        if not (marked or add or clone.uses_lfs(base) or clone.has_any_lfs_content()):
            return {}
        known = marked or bool(add) or clone.uses_lfs(base)
        found = clone.lfs_pointers(tree)
        pointers = {path for path, pointer in found.items() if known or clone.has_lfs_content(pointer)}
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
    opener = partial(output.open_file, folder, found)
    large = limits.is_for_lfs(found.size)
    if not large and active and mao_git.lfs.may_be_pointer(found.size):
        with opener() as stream:  # what looks like a pointer would be read as one, so it goes to LFS itself
            large = mao_git.lfs.parse_pointer(stream.read()) is not None
    return Content(opener, found.size, found.executable, lfs=large)
