"""Preparing a step: its dataset's branch and its input, checked out as plain files. Blocking."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.clones import ensure_branch, sync_clone
from mao_datamgmt.datasets.delivery import BranchRewritten
from mao_git import CheckoutOptions, Clone, MergeConflict
from mao_shared.errors import InvalidInput, MaoError
from mao_shared.host.data_dir import Workspace
from mao_shared.models import DatasetRef, ResolvedStep, Run
from mao_shared.states import StepPhase
from mao_shared.store import Stored

from . import workspaces, worktrees
from .output import Stamp, make_stamp


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The commits in a workspace. `fetched`: dataset → the error of its fetch, if any."""

    base_commit: str
    input_commit: str | None
    fetched: dict[str, MaoError | None]


def has_written_input(run: Run, index: int) -> bool:
    """Return whether an earlier step has written the dataset that a step reads."""
    source = run.steps[index].spec.input
    earlier = (step for step in run.steps[:index] if step.phase is StepPhase.SUCCEEDED)
    return source is not None and any(step.spec.output.name == source.name for step in earlier)


def with_own_input(stored: Stored[Run], index: int) -> Stored[Run]:
    """Return the run with the step reading this node's branch, if it may do so when ground truth is late."""
    run, step = stored.record, stored.record.steps[index]
    source = step.spec.input
    if step.spec.on_late_truth != "own" or source is None:
        return stored
    own = source.model_copy(update={"branch": run.node})
    spec = step.spec.model_copy(update={"input": own})
    changed = run.with_step(index, step.model_copy(update={"spec": spec}))
    return Stored(changed, stored.revision)


def prepare(
    context: Context, spec: ResolvedStep, target: Workspace, *, wrote_input: bool = False
) -> PreparedStep:
    """Create the workspace from the datasets' remotes, or from the clones while those are away.

    `wrote_input`: an earlier step of the run has written the input dataset. Where that has no ground truth
    yet, as before the first round, the step reads this node's branch.

    Each dataset is fetched once. Raises InvalidInput (`input-missing`, `dataset-unsafe`), Conflict (`dataset-
    master-changed`), and what `sync_clone` raises while there is no clone.
    """
    output = sync_clone(context, spec.output.name, spec.output.master)
    try:
        base = ensure_branch(context, output)
    except (MergeConflict, BranchRewritten):  # publishing reports it; until then the step builds on our tip
        tip = output.clone.tip(context.node)
        if tip is None:
            raise
        base = tip
    if spec.input is None or spec.input.name == spec.output.name:
        source = None if spec.input is None else output
    else:
        source = sync_clone(context, spec.input.name, spec.input.master)
    own = context.node if wrote_input and spec.reads_truth else None
    commit = None if source is None or spec.input is None else _input_commit(source.clone, spec.input, own)

    def fill(workspace: Workspace) -> dict[str, Stamp]:
        if source is not None and commit is not None:
            checkout_whole(context, source.clone, commit, workspace.input, CheckoutOptions(read_only=True))
        files = worktrees.reuse(context, output.clone, base, workspace)
        if files is not None:
            return files
        as_owner = CheckoutOptions(owner=context.owner)
        statuses = checkout_whole(context, output.clone, base, workspace.data, as_owner)
        return {path: make_stamp(status) for path, status in statuses.items()}

    workspaces.create(target, context.owner, fill, context.data.worktree(spec.output.name))
    fetched = {spec.output.name: output.stale}
    if source is not None and spec.input is not None:
        fetched[spec.input.name] = source.stale
    return PreparedStep(base, commit, fetched)


def checkout_whole(
    context: Context, clone: Clone, commit: str, folder: Path, manner: CheckoutOptions
) -> dict[str, os.stat_result]:
    """Check a commit out into an empty folder, with the content of large files. Raises MaoError."""

    def checkout() -> dict[str, os.stat_result]:
        workspaces.remove_tree(folder)
        mao_git.make_folder(folder, manner.owner)
        return clone.checkout_tree(commit, folder, manner)

    return clones.with_lfs_content(context, clone, commit, checkout)


def _input_commit(clone: Clone, wanted: DatasetRef, otherwise: str | None) -> str:
    tip = clone.latest_tip(wanted.branch)
    if tip is None and otherwise is not None:
        tip = clone.latest_tip(otherwise)
    if tip is None:
        raise InvalidInput(
            f"The input dataset {wanted.name!r} has no branch {wanted.branch!r} yet.",
            code="input-missing",
            next="Run a pipeline that writes to it first, or name another branch in the step's input_branch.",
        )
    return tip
