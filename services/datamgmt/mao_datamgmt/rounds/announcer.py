"""Announces each snapshot of this node's runs to its round once, in the order of the ticks.

At startup the pending announcements are derived from the runs in the node's own store, so that neither a
crash nor an outage of the federation loses any. Only this loop waits for the federation, which does not
delay runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_git import Clone, RepositoryError
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, RecordUnreadable, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import (
    Announcement,
    Enrolment,
    ResolvedStep,
    Run,
    SharedDataset,
    round_id,
    tick_run_id,
)
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Backoff, Controller, Guard, Mirror, every, until_done
from mao_shared.runs.listing import past_runs_since
from mao_shared.runs.records import IndexedRun, RunRecords
from mao_shared.store import Records, Store, Unreadable

from .decide import MAX_TICK_AGE
from .participation import DatasetSharing
from .peer_records import PeerRecords
from .pending import PendingAnnouncement, Watermarks, pending_announcements
from .validation import PEER_RECORDS_KEPT, is_attested, is_tick_over
from .view import RoundIndex

log = get_logger(__name__)
STORE_RETRY_SECONDS = 1.0  # between two attempts while a store is unavailable
UNREADABLE_RETRY_SECONDS = 30.0  # until a run with an unreadable record is retried
PUSH_CHECK_SECONDS = 2.0  # between two checks whether a commit has been pushed
MAX_HOLD = timedelta(seconds=60)  # how long a later tick waits for the commit of an earlier one to be pushed
ALL_RUNS_QUEUED = ""  # queued after all runs that existed at startup


class Announcer:
    """Announces snapshots. `runs` is the mirror of active runs; other runs are read when needed."""

    def __init__(
        self,
        context: Context,
        git: GitExecutor,
        sharing: DatasetSharing,
        runs: Mirror[Run],
        own: Store,
        peers: PeerRecords,
        index: RoundIndex,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._context = context
        self._git = git
        self._sharing = sharing
        self._runs = runs
        self._peers, self._index = peers, index
        self._conditions = conditions
        self._guard = Guard("announcer", conditions)
        self._run_records = RunRecords(own, context.node, unreadable)
        self._enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment, unreadable)
        self._shared = Records(own, keys.shared_prefix(context.node), SharedDataset, unreadable)
        prefix = f"{keys.peer_root(context.node)}announcements/"
        self._records = Records(peers.mirror.records.store, prefix, Announcement, unreadable)
        self._shared_since: dict[str, datetime] = {}  # dataset → the tick from which on it has rounds
        self._is_solo: dict[str, bool] = {}  # active run → no other node votes on its datasets
        self._pending: dict[tuple[str, str], PendingAnnouncement] = {}
        self._watermarks = Watermarks(context, own, index, self._pending, unreadable, conditions)
        self._wake = asyncio.Event()
        self._controller = Controller(
            "announcer",
            self._reconcile,
            workers=1,
            list_keys=self._list_runs,
            resync=None,
            conditions=conditions,
        )
        self._controller.watches(runs, lambda run_id: run_id)
        self._controller.watches(index.mirror, self._run_of_round)
        self._controller.watches(peers.mirror, lambda _: None)

    @property
    def waiting(self) -> list[Announcement]:
        """The announcements that are still pending."""
        return [pending.announcement for pending in self._pending.values()]

    @property
    def complete(self) -> bool:
        """True once all runs that existed at startup have been processed."""
        return self._watermarks.started

    def forget(self, dataset: str) -> None:
        """Forget that a dataset was shared, at its operator's request."""
        self._shared_since.pop(dataset, None)

    def reconsider(self, run_id: str) -> None:
        """Announce a run's snapshots again, since one was published after the run's end."""
        self._controller.add(run_id)

    async def run(self) -> None:
        """Announce until cancelled."""
        away = Backoff(STORE_RETRY_SECONDS, STORE_RETRY_SECONDS)
        await until_done(self._watermarks.load, name="announcer", conditions=self._conditions, away=away)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.run())
            group.create_task(self._watermarks.run())
            group.create_task(
                every(
                    None,
                    self._announce_all,
                    name="announcer",
                    wake=self._wake,
                    initial_delay=None,
                    conditions=self._conditions,
                    away=away,
                    outages=MaoError,
                )
            )

    # from runs to pending announcements

    async def _list_runs(self) -> list[str]:
        """Return the past runs that may have unannounced snapshots, oldest first, then all active runs."""
        past: list[str] = []
        oldest = self._context.clock.now() - MAX_TICK_AGE
        steps: dict[str, Sequence[ResolvedStep] | None] = {}
        async with aclosing(past_runs_since(self._run_records, oldest)) as indexed:
            async for run in indexed:  # the index excludes most, without reading their documents
                if run.pipeline not in steps:
                    steps[run.pipeline] = await self._steps_with_rounds(run.pipeline)
                if run.scheduled_for is not None and not self._is_announced(run, steps[run.pipeline]):
                    past.append(run.id)
        active = [stored.record.id async for stored in self._run_records.iterate()]
        return [*reversed(past), *active, ALL_RUNS_QUEUED]

    async def _steps_with_rounds(self, pipeline: str) -> Sequence[ResolvedStep] | None:
        """Return the enrolment's steps; none if no output is shared, None if that is unknown."""
        stored = await self._enrolments.find(pipeline)
        if stored is None:
            return None
        try:
            shared = [await self._sharing.is_shared(dataset) for dataset in stored.record.outputs]
        except Unavailable:
            return None
        return stored.record.steps if any(shared) else []

    def _is_announced(self, run: IndexedRun, steps: Sequence[ResolvedStep] | None) -> bool:
        """True if all of a run's snapshots have been announced, with their commits."""
        if steps is None or run.scheduled_for is None:
            return False
        for step in steps:
            name = round_id(run.scheduled_for, run.pipeline, step.name)
            stored = self._peers.announced(step.output.name, name).get(self._context.node)
            if stored is None or stored.record.commit is None:
                return False
            self._watermarks.track(stored.record)
        return True

    def _run_of_round(self, name: str) -> str | None:
        """Return this node's run for a round that another node has opened or that was reset."""
        stored, node = self._index.mirror.get(name), self._context.node
        if stored is None or stored.record.phase in ROUND_ENDED:
            return None
        round_ = stored.record
        if node in self._peers.announced(round_.dataset, round_.id):
            return None
        return tick_run_id(round_.pipeline, node, round_.tick)

    async def _reconcile(self, run_id: str) -> float | None:
        if run_id == ALL_RUNS_QUEUED:
            self._watermarks.start()
            return None
        try:
            await self._collect(run_id)
            self._guard.succeeded(run_id)
        except Unavailable:
            return STORE_RETRY_SECONDS
        except RecordUnreadable as error:  # reported as a condition where it was read
            log.warning("announce.unreadable", run=run_id, code=error.code, error=error.detail)
            return UNREADABLE_RETRY_SECONDS
        except Exception as error:  # noqa: BLE001 (a back-off must not delay the next change)
            return max(UNREADABLE_RETRY_SECONDS, self._guard.failed(run_id, error))
        return None

    async def _collect(self, run_id: str) -> None:
        """Add the announcements that a run needs now to the pending ones."""
        active = self._runs.get(run_id)
        if self._is_solo.get(run_id, False):
            if active is None:
                del self._is_solo[run_id]
            return
        stored = active or await self._run_records.get(run_id)
        now = self._context.clock.now()
        if stored is None or (tick := stored.record.scheduled_for) is None or now - tick > MAX_TICK_AGE:
            return
        run = stored.record
        steps: Sequence[ResolvedStep] = [step.spec for step in run.steps]
        if not steps and (enrolment := await self._enrolments.get(run.pipeline)) is not None:
            steps = enrolment.record.steps
        if run_id not in self._is_solo or active is None:
            datasets = {step.output.name for step in steps}
            since = now if active is None else tick
            shared = [await self._note_sharing(dataset, since) for dataset in datasets]
            self._is_solo[run_id] = not any(shared)
        if active is None:
            del self._is_solo[run_id]
        for pending in pending_announcements(run, steps, now):
            self._watermarks.track(pending.announcement)
            if self._is_new(pending):
                known = self._pending.get(pending.key)
                queued = pending if known is None else _announced_at(pending, known.announcement.announced_at)
                self._pending[pending.key] = queued
                self._wake.set()

    async def _note_sharing(self, dataset: str, since: datetime) -> bool:
        """Return True if a dataset is shared; record since which tick it is, or that it is not."""
        is_shared = await self._sharing.is_shared(dataset)
        if is_shared and dataset in self._shared_since:
            return True
        if not is_shared:
            self._shared_since.pop(dataset, None)
            await self._shared.update(dataset, lambda shared: shared.model_copy(update={"apart": True}))
            return False

        def set_since(shared: SharedDataset | None) -> SharedDataset | None:
            if shared is None:
                return SharedDataset(dataset=dataset, since=since)
            if shared.apart or shared.since is None:
                return shared.model_copy(update={"apart": False, "since": since})
            return None

        stored = await self._shared.create_or_update(dataset, set_since)
        self._shared_since[dataset] = since if stored is None else stored.record.since or since
        return True

    def _is_new(self, pending: PendingAnnouncement) -> bool:
        """True if the federation store lacks the announcement, and its round can still use it."""
        dataset, round_id = pending.key
        announcement = pending.announcement
        stored = self._index.mirror.get(f"{dataset}/{round_id}")
        if stored is None and announcement.tick < self._shared_since.get(dataset, announcement.announced_at):
            return False
        if stored is not None and stored.record.phase in ROUND_ENDED:
            # A round recorded as decided without attestations may be reset and then needs the announcement.
            round_ = stored.record
            if round_.phase != "decided" or self._context.clock.now() - round_.tick > PEER_RECORDS_KEPT:
                return False
            if is_attested(round_, self._peers.attestations(round_)):
                return False
        earlier = self._peers.announced(dataset, round_id).get(self._context.node)
        if stored is None and earlier is None:
            if self._watermarks.covers(pending):
                return False
            newest_first = (known.record for known in reversed(self._index.of(dataset).values()))
            if is_tick_over(announcement, pending.done_at, newest_first, self._peers.attestations):
                return False
        return earlier is None or (earlier.record.commit is None and announcement.commit is not None)

    # from pending announcements to the federation store

    async def _announce_all(self) -> float | None:
        """Announce what is ready; return the seconds until the next check of the rest."""
        ordered = sorted(self._pending.values(), key=_order)
        for dataset, group in groupby(ordered, key=lambda pending: pending.announcement.dataset):
            with self._guard.item(f"dataset {dataset}"):
                await self._announce(dataset, list(group))
        return PUSH_CHECK_SECONDS if self._pending else None

    async def _announce(self, dataset: str, announcements: Sequence[PendingAnnouncement]) -> None:
        held_since: datetime | None = None
        for pending in announcements:
            if not self._is_new(pending):
                self._pending.pop(pending.key, None)
                continue
            pending_since = pending.announcement.announced_at
            commit = pending.announcement.commit
            is_pushed = commit is None or await self._git.read(is_at_remote, self._context, dataset, commit)
            if not (pending.ready and is_pushed):
                held_since = held_since or pending_since
            elif held_since is None or self._context.clock.now() - pending_since > MAX_HOLD:
                await self._write(pending)

    async def _write(self, pending: PendingAnnouncement) -> None:
        new = _announced_at(pending, self._context.clock.now()).announcement

        def replace_absence(known: Announcement | None) -> Announcement | None:
            return new if known is None or (known.commit is None and new.commit is not None) else None

        await self._records.create_or_update(f"{new.dataset}/{new.round}", replace_absence)
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]
        log.info("announced", dataset=new.dataset, round=new.round, commit=new.commit)


def _order(pending: PendingAnnouncement) -> tuple[str, datetime, str]:
    return pending.announcement.dataset, pending.announcement.tick, pending.announcement.round


def _announced_at(pending: PendingAnnouncement, moment: datetime) -> PendingAnnouncement:
    return replace(pending, announcement=pending.announcement.model_copy(update={"announced_at": moment}))


def is_at_remote(context: Context, dataset: str, commit: str) -> bool:
    """True if the last fetch found a commit on this node's branch at the remote. Blocking."""
    try:
        clone = Clone.open(context.data.clone(dataset))
        tip = clone.tip(context.node, remote=True)
        return tip is not None and clone.contains(tip, commit)
    except (MaoError, RepositoryError):
        return False
