"""Accepting and discarding quarantined snapshots, and what follows for their runs.

    git: commit on the node's branch ─► decision on the quarantine branch ─► run's document ─► round, push

The decision is in git; the run's document follows it. What a kill interrupted is finished at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mao_datamgmt.context import Context
from mao_datamgmt.datasets import quarantine
from mao_datamgmt.datasets.clones import dataset_names
from mao_datamgmt.datasets.push import Pusher
from mao_datamgmt.datasets.quarantine import Decision
from mao_datamgmt.git_executor import GitExecutor
from mao_git import Clone
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import Listing, Run, StepRun
from mao_shared.models.check import QuarantinedSnapshot, QuarantineState, quarantine_branch
from mao_shared.reconcile import Backoff, Guard, until_done
from mao_shared.runs.records import RunRecords
from mao_shared.store import Check, Put, Stored, dump, retry_lost
from mao_shared.store.protocol import cursor_invalid

log = get_logger(__name__)

SETTLED_AT_START = 200  # newest snapshots of a dataset whose runs are compared with their decisions
AWAY = Backoff(1.0, 30.0)
Decide = Callable[[Context, str, str, Decision], QuarantinedSnapshot]


class QuarantinedSnapshots:
    """The quarantined snapshots of this node. `announce` is called with the run of an accepted one."""

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        runs: RunRecords,
        pusher: Pusher,
        follow_ups: Callable[[Run, StepRun], Sequence[Put]],
        announce: Callable[[str], None],
        conditions: Conditions | None = None,
    ) -> None:
        self._context, self._executor, self._runs, self._pusher = context, executor, runs, pusher
        self._follow_ups, self._announce = follow_ups, announce
        self._conditions, self._guard = conditions, Guard("quarantine", conditions)

    async def run(self) -> None:
        """Finish once what a kill interrupted."""
        await until_done(
            self._settle, name="quarantine", conditions=self._conditions, away=AWAY, failing=AWAY
        )

    async def list_(
        self, dataset: str, state: QuarantineState | None, limit: int, cursor: str | None
    ) -> Listing[QuarantinedSnapshot]:
        """List the snapshots, newest first. `cursor` is a commit. Raises NotFound without a clone."""
        found = await self._executor.query(quarantine.list_snapshots, self._context, dataset)
        if cursor is not None:
            place = next((place for place, one in enumerate(found) if one.commit == cursor), None)
            if place is None:
                raise cursor_invalid()
            found = found[place + 1 :]
        wanted = [snapshot for snapshot in found if state in (None, snapshot.state)]
        more = len(wanted) > limit
        return Listing(items=wanted[:limit], cursor=wanted[limit - 1].commit if more else None)

    async def get(self, dataset: str, name: str) -> QuarantinedSnapshot:
        return await self._executor.query(quarantine.get_snapshot, self._context, dataset, name)

    async def accept(self, dataset: str, name: str, decision: Decision) -> QuarantinedSnapshot:
        """Publish a snapshot; see `quarantine.accept`."""
        return await self._decide(quarantine.accept, dataset, name, decision)

    async def discard(self, dataset: str, name: str, decision: Decision) -> QuarantinedSnapshot:
        """Discard a snapshot; see `quarantine.discard`."""
        return await self._decide(quarantine.discard, dataset, name, decision)

    async def _decide(
        self, decide: Decide, dataset: str, name: str, decision: Decision
    ) -> QuarantinedSnapshot:
        snapshot = await self._executor.write([dataset], decide, self._context, dataset, name, decision)
        log.info("quarantine.decided", dataset=dataset, run=snapshot.run, state=snapshot.state)
        await self._follow(snapshot)
        await self._pusher.push_now(dataset)
        return await self.get(dataset, snapshot.commit)

    async def _settle(self) -> None:
        for dataset in await self._executor.read(quarantining_datasets, self._context):
            with self._guard.item(dataset):
                found = await self._executor.write(
                    [dataset], quarantine.settle, self._context, dataset, SETTLED_AT_START
                )
                for snapshot in found:
                    if snapshot.state != "waiting":
                        await self._follow(snapshot)

    async def _follow(self, snapshot: QuarantinedSnapshot) -> None:
        """Bring the run's document in line with a decision, if the document still exists."""

        async def attempt() -> bool | None:
            stored = await self._runs.get(snapshot.run)
            index = None if stored is None else _index_of(stored.record, snapshot)
            if stored is None or index is None:
                return False
            step = decided_step(stored.record.steps[index], snapshot)
            run = stored.record.with_step(index, step)
            return True if await self._write(stored, run, self._follow_ups(run, step)) else None

        changed = await retry_lost(attempt, f"the run {snapshot.run}")
        if changed and snapshot.state == "accepted":
            self._announce(snapshot.run)

    async def _write(self, stored: Stored[Run], run: Run, follow_ups: Sequence[Put]) -> bool:
        store, key = self._runs.store, self._runs.prefix + run.id
        writes = [Put(key, dump(run)), *follow_ups]
        if await store.transact([Check(key, stored.revision)], writes) is not None:
            return True
        if await self._runs.replace(run.id, run, stored.revision) is None:
            return False  # it was changed meanwhile; otherwise it was in the history
        if follow_ups:
            await store.transact([], follow_ups)
        return True


def _index_of(run: Run, snapshot: QuarantinedSnapshot) -> int | None:
    """Return the index of the step whose document does not tell the decision yet; None if it does."""
    for index, step in enumerate(run.steps):
        known = step.quarantine
        if known is not None and known.commit == snapshot.commit and known.state != snapshot.state:
            return index
    return None


def decided_step(step: StepRun, snapshot: QuarantinedSnapshot) -> StepRun:
    """Return a step after the decision about its snapshot. Pure."""
    assert step.quarantine is not None  # noqa: S101 (the caller has found it)
    known = step.quarantine.model_copy(
        update={
            "state": snapshot.state,
            "decided_at": snapshot.decided_at,
            "by": snapshot.by,
            "note": snapshot.note,
        }
    )
    changes: dict[str, Any] = {"quarantine": known}
    if snapshot.state == "accepted":
        # The pusher records when the remote has it, under the id that it then has.
        changes |= {"snapshot": snapshot.accepted_as, "pushed": False, "waiting": None}
    else:
        by = f" by {snapshot.by}" if snapshot.by else ""
        changes["waiting"] = f"its quarantined output was discarded{by}"
    return step.model_copy(update=changes)


def quarantining_datasets(context: Context) -> list[str]:
    """Return the datasets in which this node has a quarantine branch. Blocking."""
    branch, found = quarantine_branch(context.node), []
    for name in dataset_names(context.data):
        try:
            if Clone.open(context.data.clone(name)).latest_tip(branch) is not None:
                found.append(name)
        except Exception as error:  # noqa: BLE001 (a broken clone must not block the others; it is repaired)
            log.warning("quarantine.clone_unusable", dataset=name, error=str(error))
    return found
