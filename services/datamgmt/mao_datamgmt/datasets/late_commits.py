"""Updates runs that ended before their commits were pushed, once the commits are on the remote.

A step that succeeds while its remote is unavailable has `pushed: false`. When the push succeeds later, its
run has ended and no service owns it any more. This is the only change that is still made to it, guarded like
any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_git import Clone
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH, Run
from mao_shared.store import Records

log = get_logger(__name__)

PAGE = 500
MAX_SEARCHED_COMMITS = 10_000  # newest commits that are searched for those of the runs


@dataclass(frozen=True, slots=True)
class PushedCommits:
    """The last fetched state of a dataset's remote: the commit of each run and step, and ground truth's tip.

    `truth_waits`: this node's ground truth has commits that the remote's lacks.
    """

    commits: dict[tuple[str, str], str]
    ground_truth: str | None
    truth_waits: bool = False


class LatePushes:
    """Updates runs that ended before their commits were pushed. Such runs are never archived."""

    def __init__(self, context: Context, executor: GitExecutor, runs: Records[Run]) -> None:
        self._context = context
        self._executor = executor
        self._runs = runs

    async def datasets(self) -> set[str]:
        """Return the datasets with commits that a run lists as not pushed."""
        return {dataset for run in await self.runs() for dataset in _late_datasets(run)}

    async def runs(self) -> list[Run]:
        """Return the runs with commits that are not pushed."""
        found = (stored.record async for stored in self._runs.iterate())
        return [run async for run in found if any(step.late for step in run.steps)]

    async def unpushed_by_branch(self, dataset: str) -> dict[str, str]:
        """Return run and step by unpushed commit of a dataset; nothing while the store is unavailable."""
        try:
            runs = await self.runs()
        except MaoError as error:
            log.warning("late.runs_unknown", dataset=dataset, error=str(error))
            return {}
        return {
            str(step.snapshot): f"run {run.id}, step {step.spec.name}"
            for run in runs
            for step in run.steps
            if step.late and not step.pushed and step.spec.output.name == dataset
        }

    async def record_pushed(self, dataset: str) -> None:
        """Update the runs whose commits have reached the dataset's remote. Raises Unavailable."""
        late = [run for run in await self.runs() if dataset in _late_datasets(run)]
        if not late:
            return
        remote = await self._executor.read(pushed_commits, self._context, dataset)
        for run in late:
            await self._runs.update(run.id, lambda it: with_pushed(it, dataset, remote))


def _late_datasets(run: Run) -> set[str]:
    return {step.spec.output.name for step in run.steps if step.late}


def with_pushed(run: Run, dataset: str, remote: PushedCommits) -> Run | None:
    """Return the run with its steps on the remote marked as pushed, or None if nothing changes. Pure.

    A commit that was replayed on top of others has a new id.
    """
    steps = []
    for step in run.steps:
        commit = remote.commits.get((run.id, step.spec.name))
        truth_waits = step.truth_late and remote.truth_waits
        if step.late and not truth_waits and step.spec.output.name == dataset and commit is not None:
            changes: dict[str, object] = {"pushed": True, "waiting": None, "snapshot": commit}
            if step.ground_truth is not None and commit != step.snapshot:
                changes["ground_truth"] = remote.ground_truth
            step = step.model_copy(update=changes)
        steps.append(step)
    return None if steps == run.steps else run.model_copy(update={"steps": steps})


def pushed_commits(context: Context, dataset: str) -> PushedCommits:
    """Return the commits that the remote had at the last fetch. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    tip = clone.tip(context.node, remote=True)
    entries = [] if tip is None else clone.log(tip, MAX_SEARCHED_COMMITS)[0]
    named = ((provenance.trailers(entry.message), entry.commit) for entry in entries)
    commits = {(t["MAO-Run"], t["MAO-Step"]): commit for t, commit in named if len(t) == 2}
    truth = clone.tip(GROUND_TRUTH, remote=True)
    return PushedCommits(commits, truth, clone.unpushed(GROUND_TRUTH).commits > 0)
