"""Prepares a step: checks out its dataset's branch and its input as plain files. Blocking."""

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
from mao_shared.models import GROUND_TRUTH, DatasetRef, ResolvedStep, Run
from mao_shared.states import StepPhase
from mao_shared.store import Stored

from . import workspaces, worktrees
from .output import Stamp, make_stamp


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The commits in a workspace. `fetched` has the error of each dataset's fetch, if any."""

    base_commit: str
    input_commit: str | None
    fetched: dict[str, MaoError | None]


def has_written_input(run: Run, index: int) -> bool:
    """True if an earlier step has written the dataset that a step reads."""
    source = run.steps[index].spec.input
    earlier = (
        step for step in run.steps[:index] if step.phase is StepPhase.SUCCEEDED and not step.quarantined
    )
    return source is not None and any(step.spec.output.name == source.name for step in earlier)


def quarantined_input(run: Run, index: int) -> str | None:
    """Return why a step's input lacks what an earlier step has just written: it is quarantined; or None."""
    source = run.steps[index].spec.input
    if source is None or source.branch not in (GROUND_TRUTH, run.node):
        return None
    writers = [step for step in run.steps[:index] if step.spec.output.name == source.name]
    if not writers or not writers[-1].quarantined:
        return None
    return f"the output of step {writers[-1].spec.name}, which it reads, is quarantined"


def with_own_input(stored: Stored[Run], index: int) -> Stored[Run]:
    """Return the run with the step reading this node's branch, if it may when ground truth is late."""
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
    """Create the workspace from the datasets' remotes, or from the clones while those are unavailable.

    With `wrote_input`, an earlier step of the run has written the input dataset; if that has no ground truth
    yet, as before the first round, the step reads this node's branch.

    Each dataset is fetched once. Raises InvalidInput (`input-missing`, `dataset-unsafe`), Conflict
    (`dataset-master-changed`), and the errors of `sync_clone` if there is no clone.
    """
    output = sync_clone(context, spec.output.name, spec.output.master)
    try:
        base = ensure_branch(context, output)
    except (MergeConflict, BranchRewritten):  # publishing reports it; the step builds on the local tip
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
            checkout_commit(context, source.clone, commit, workspace.input, CheckoutOptions(read_only=True))
        files = worktrees.reuse(context, output.clone, base, workspace)
        if files is not None:
            return files
        as_owner = CheckoutOptions(owner=context.owner)
        statuses = checkout_commit(context, output.clone, base, workspace.data, as_owner)
        return {path: make_stamp(status) for path, status in statuses.items()}

    workspaces.create(target, context.owner, fill, context.data.worktree(spec.output.name))
    fetched = {spec.output.name: output.stale}
    if source is not None and spec.input is not None:
        fetched[spec.input.name] = source.stale
    return PreparedStep(base, commit, fetched)


def checkout_commit(
    context: Context, clone: Clone, commit: str, folder: Path, options: CheckoutOptions
) -> dict[str, os.stat_result]:
    """Check out a commit into an empty folder, with LFS content. Raises MaoError."""

    def checkout() -> dict[str, os.stat_result]:
        workspaces.remove_tree(folder)
        mao_git.make_folder(folder, options.owner)
        return clone.checkout_tree(commit, folder, options)

    return clones.with_lfs_content(context, clone, commit, checkout)


def _input_commit(clone: Clone, dataset: DatasetRef, fallback: str | None) -> str:
    tip = clone.latest_tip(dataset.branch)
    if tip is None and fallback is not None:
        tip = clone.latest_tip(fallback)
    if tip is None:
        raise InvalidInput(
            f"The input dataset {dataset.name!r} has no branch {dataset.branch!r} yet.",
            code="input-missing",
            next="Run a pipeline that writes to it first, or name another branch in the step's input_branch.",
        )
    return tip
