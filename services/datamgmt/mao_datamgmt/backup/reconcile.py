"""Reconstructs, after a restore, the runs since the backup from the history of the datasets.

The node's branch of each dataset of the backup is fetched from its remote once; until that succeeds, the
condition `restored` is set. The runs found are recorded as ended; nothing is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import sync_clone
from mao_datamgmt.git_executor import GitExecutor
from mao_git import Clone, RepositoryError
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import Enrolment, Run
from mao_shared.models.node import Restored
from mao_shared.reconcile import Backoff, every
from mao_shared.store import Records, Store

from .runs import StepCommit, commits_since, reconstruct_run

CONDITION = "restored"
RESTORE_CHECK_BACKOFF = Backoff(initial=2.0, maximum=300.0)
IDLE_SECONDS = 3600.0  # pause when nothing remains to be done
CLOCK_SKEW = timedelta(minutes=1)


log = get_logger(__name__)


class Reconciler:
    """Looks for runs made after the backup. `run` retries until cancelled; `reconcile` is one attempt."""

    def __init__(
        self, context: Context, executor: GitExecutor, own: Store, runs: Records[Run], conditions: Conditions
    ) -> None:
        self._context = context
        self._executor = executor
        self._runs = runs
        self._conditions = conditions
        self._enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment)
        self._records = Records(own, keys.restored(context.node), Restored)

    async def run(self) -> None:
        tries = 0

        async def step() -> float:
            nonlocal tries
            if await self.reconcile():
                return IDLE_SECONDS
            tries += 1
            return RESTORE_CHECK_BACKOFF.pause(tries)

        await every(0.0, step, name="restored", conditions=self._conditions, failing=RESTORE_CHECK_BACKOFF)

    async def reconcile(self) -> bool:
        """Reconcile the remaining datasets; True if none remains. Raises Unavailable without etcd."""
        stored = await self._records.get("")
        if stored is None or not stored.record.open:
            return True
        restored = stored.record
        found: defaultdict[str, list[StepCommit]] = defaultdict(list)
        remaining: list[str] = []
        for dataset in restored.open:
            steps, failure = await self._find_commits(dataset, restored)
            for step in steps:
                found[step.run].append(step)
            if failure is None:
                self._conditions.clear(CONDITION, dataset)
            else:
                remaining.append(dataset)
                self._report(dataset, restored, failure)
        for steps in found.values():
            await self._record(steps, restored)
        done = restored.model_copy(update={"open": remaining})
        await self._records.replace("", done, stored.revision)
        return not remaining

    async def _find_commits(
        self, dataset: str, restored: Restored
    ) -> tuple[list[StepCommit], Exception | None]:
        """Return the steps found in the clone, and the error if the remote could not be fetched."""
        tip = restored.tips.get(dataset)
        try:
            return await self._executor.write(
                [dataset], fetch_commits, self._context, dataset, tip, restored.backup_at
            )
        except NotFound:  # the clone was set aside since
            return [], None
        except (MaoError, RepositoryError, OSError) as error:
            return [], error

    def _report(self, dataset: str, restored: Restored, error: Exception) -> None:
        at = f"{restored.backup_at:%Y-%m-%dT%H:%M:%SZ}"
        why = error.detail if isinstance(error, MaoError) else str(error)
        self._conditions.report(
            CONDITION,
            dataset,
            detail=f"The node was restored from its backup of {at}, and {dataset} was not yet "
            f"searched for runs made after that: {why}",
            next_step="It is retried automatically. Do not backfill until then: a tick could run twice.",
        )

    async def _record(self, found: Sequence[StepCommit], restored: Restored) -> None:
        """Record one run as its commits describe it."""
        enrolment = await self._enrolments.find(str(found[0].record.get("pipeline")))
        steps = None if enrolment is None else enrolment.record
        run: Run | None = None
        is_new = False

        def change(known: Run | None) -> Run | None:
            nonlocal run, is_new
            run, is_new = reconstruct_run(found, known, steps, restored), known is None
            return run

        await self._runs.create_or_update(found[0].run, change)
        if run is not None:
            log.info("restored.run", run=run.id, phase=run.phase)
        # A push to this node's branch after the restore that was not made here was made by another machine.
        latest = max(commit.at for commit in found)
        if run is not None and is_new and latest > restored.restored_at + CLOCK_SKEW:
            node = self._context.node
            self._conditions.report(
                CONDITION,
                "(another node)",
                detail=f"Another node {node} is running elsewhere: it pushed to {found[0].dataset} at "
                f"{latest:%Y-%m-%dT%H:%M:%SZ}, after this one was restored.",
                next_step=f"Stop one of the two, then restart this one: there can be only one node {node}.",
            )


def fetch_commits(
    context: Context, dataset: str, tip: str | None, since: datetime | None = None
) -> tuple[list[StepCommit], MaoError | None]:
    """Fetch a dataset, and return the steps after `tip` and the error of a failed fetch. Blocking.

    `since`: as for `commits_since`.
    """
    clone = Clone.open(context.data.clone(dataset))
    synced = sync_clone(context, dataset, clone.url)
    return commits_since(context, dataset, tip, since), synced.stale
