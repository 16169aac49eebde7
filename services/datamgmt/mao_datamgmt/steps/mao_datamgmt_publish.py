"""Publishing a step's output: judged, committed to the node's branch exactly once. Blocking.

Committing can be repeated at any point: the commit of a step is looked for before another is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import mao_git
from mao_datamgmt import mao_datamgmt_provenance
from mao_datamgmt.context import Context
from mao_datamgmt.datasets.delivery import blocked, deliver
from mao_datamgmt.disk import require_room
from mao_datamgmt.provenance import Digests, Written
from mao_git import Clone, Content, MergeConflict
from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models import GROUND_TRUTH, Run, StepRun

from . import output, publish, workspaces, worktrees
from .changes import HandedOver, changes_of
from .prepare import as_read


@dataclass(frozen=True, slots=True)
class Published:
    """`failure`: why the remote has not taken all; None when it has. `pushed`: it has the snapshot itself."""

    snapshot: str
    ground_truth: str | None
    failure: MaoError | None
    pushed: bool


_NEVER = (0, 0, 0, 0)  # the stamp of no file


def record_output(context: Context, run: Run, step: StepRun, workspace: Workspace) -> str | None:
    """The commit with a step's output on the node's branch; None when it wrote nothing and may.

    Raises InvalidInput (`output-…`) for output that is refused or missing, Conflict-like MaoError
    (`output-conflict`) when the branch has changed in the same places since the workspace was laid, and
    Unavailable (`disk-full`) when the commit would not leave MAO_MIN_FREE.
    """
    clone = mao_git.open_clone(context.data.clone(step.spec.output.name))
    known = find_snapshot(context, clone, run, step)
    if known is not None:
        return known
    if step.base_commit is not None and not mao_git.has_commit(clone, step.base_commit):
        step = _on_what_is_left(context, clone, step)  # it went with a broken clone
        before = _unsealed(clone, step.base_commit)
    else:
        before = workspaces.read(workspace.root) or _unsealed(clone, step.base_commit)
    limits = publish.limits_of(context, step.spec.output)
    seen = output.survey(workspace.data, limits, before.files, before.sealed_at)
    changes = changes_of(before, seen.files, seen.same)
    base = mao_git.tree_of(clone, step.base_commit)
    if not changes.touched:
        if step.spec.allow_empty:
            worktrees.note(context, workspace, base, changes)
            return None
        raise output_missing(step)
    require_room(context, _room_for([each.size for each in changes.written]))
    contents = publish.contents_of(clone, base, changes, workspace.data, limits)
    digests = Digests()
    tree = _tree(clone, base, digests.watch(contents))
    output.check_links(mao_git.links_of(clone, tree), mao_git.links_of(clone, base))
    texts = publish.texts_for(clone, base, tree, contents)
    tree = mao_git.with_texts(clone, tree, texts)
    texts.pop(mao_git.MARK, None)  # of which tools and records know nothing
    for path, text in texts.items():
        digests.note(path, text)
    worktrees.note(context, workspace, tree, changes, unlike=frozenset({*texts, mao_git.MARK}))
    touched = {each.path for each in changes.written if before.files.get(each.path) != each.stamp}
    written = digests.written(touched, mao_git.changed_files(clone, base, tree))
    return _commit(context, clone, run, step, tree, written)


def _room_for(sizes: list[int]) -> int:
    """Bytes that writing files of these sizes may take; a large one lies there twice while it is written."""
    return sum(sizes) + max(sizes, default=0)


def committed(context: Context, run: Run, step: StepRun) -> str | None:
    """The commit that this step of this run has made already, if it has and that can be told."""
    try:
        clone = mao_git.open_clone(context.data.clone(step.spec.output.name))
        return find_snapshot(context, clone, run, step)
    except (NotFound, mao_git.CloneBroken, *mao_git.TROUBLE):
        return None


def find_snapshot(context: Context, clone: Clone, run: Run, step: StepRun) -> str | None:
    """The commit that this step of this run has made already, if it has."""
    tip = mao_git.find_branch(clone, context.node)
    if tip is None:
        return None
    matches = partial(mao_datamgmt_provenance.is_snapshot_of, run_id=run.id, step=step.spec.name)
    return mao_git.find_commit(clone, tip, step.base_commit, matches)


def _unsealed(clone: Clone, base: str | None) -> HandedOver:
    """What to take for handed over when the record of it is lost: every file is looked at anew."""
    paths = mao_git.list_paths(clone, base) if base is not None else []
    return HandedOver(dict.fromkeys(paths, _NEVER), 0)


def _on_what_is_left(context: Context, clone: Clone, step: StepRun) -> StepRun:
    """The step as if it had been given what the branch holds now: its folder is taken as a whole."""
    tip = mao_git.settle(clone, context.node)
    return step.model_copy(update={"base_commit": tip})


def _tree(clone: Clone, base: str, contents: Mapping[str, Content | None]) -> str:
    try:
        return mao_git.tree_with(clone, base, contents)
    except ValueError as error:
        raise output.refused(str(error), "cannot be kept") from error


def _commit(context: Context, clone: Clone, run: Run, step: StepRun, tree: str, written: Written) -> str:
    base, tip = step.base_commit, mao_git.find_branch(clone, context.node)
    if tip is not None and base is not None and tip != base:
        try:
            tree = mao_git.merge_trees(clone, base, tip, tree)
        except MergeConflict as conflict:
            raise output_conflict(conflict) from conflict
    versions = {"libgit2": mao_git.version()}
    message = mao_datamgmt_provenance.commit_message(run, as_read(context, step), written, versions)
    parents = [] if tip is None else [tip]
    commit = mao_git.commit_tree(clone, tree, parents, message, context.author())
    if not mao_git.move_branch(clone, context.node, commit, tip):
        raise mao_git.branch_busy(context.node)
    return commit


def deliver_output(context: Context, run: Run, step: StepRun, commit: str, *, promote: bool) -> Published:
    """Pushes the commit of a step; raises `output-conflict` when it does not fit what the remote has."""
    clone = mao_git.open_clone(context.data.clone(step.spec.output.name))
    if not mao_git.has_commit(clone, commit) and find_snapshot(context, clone, run, step) is None:
        raise mao_git.CloneBroken.of(step.spec.output.name, f"it has lost the commit {commit[:10]}")
    try:
        delivery = deliver(context, clone, promote=promote)
    except MergeConflict as conflict:
        if conflict.commit == commit and withdraw(context, clone, commit):
            raise output_conflict(conflict) from conflict
        return Published(commit, None, blocked(clone, conflict), pushed=False)
    snapshot = find_snapshot(context, clone, run, step) or commit
    truth = delivery.ground_truth if promote else None
    return Published(snapshot, truth, delivery.failure, delivery.observed)


def withdraw(context: Context, clone: Clone, commit: str) -> bool:
    """Takes a commit that cannot be published off our branches, if it is the tip of the node's."""
    parent = mao_git.parent_of(clone, commit)
    if parent is None or not mao_git.move_branch(clone, context.node, parent, commit):
        return False
    mao_git.take_over_remote(clone, GROUND_TRUTH)
    return True


def output_missing(step: StepRun) -> InvalidInput:
    """The tool ended well and touched no file."""
    return InvalidInput(
        "The tool ended with success but wrote nothing to its data folder.",
        code="output-missing",
        next=f"Check where it writes: maoctl tool check {step.spec.image.name}. If a run without output is "
        "fine, set 'allow_empty' on the step.",
    )


def output_conflict(conflict: MergeConflict) -> MaoError:
    """Somebody changed the same files on the node's branch."""
    shown = ", ".join(conflict.paths[:5]) or "its history"
    return MaoError(
        f"The node's branch was changed elsewhere in the same files ({shown}); the output is not published.",
        code="output-conflict",
        next="Only this node should push to its branch. The output is kept in the run's workspace; run it "
        "again to build on what is there now.",
    )
