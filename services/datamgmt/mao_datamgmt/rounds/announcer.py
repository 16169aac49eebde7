"""Announces what this node's runs bring to rounds, each thing once, in the order of the ticks.

What is to be said is worked out from the runs in the node's own store whenever this begins, so that neither a
crash nor a federation that is away loses any of it. Whatever waits for the federation waits here, off the way
from a tick to its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeVar

from mao_datamgmt.context import Context
from mao_datamgmt.executor import GitExecutor
from mao_git import Clone, RepositoryError
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, RecordUnreadable, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models import Announcement, Enrolment, ResolvedStep, Round, Run, Shared, round_id, tick_run_id
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Backoff, Guard, Mirror, until_done
from mao_shared.reconcile.controller import WorkQueue
from mao_shared.runs.listing import past_runs_since
from mao_shared.runs.records import IndexedRun, RunRecords
from mao_shared.store import Records, Store, Stored, Unreadable

from .decide import MAX_TICK_AGE
from .participation import DatasetSharing
from .peer_records import PeerRecords
from .pending import PendingAnnouncement, Watermarks, pending_announcements
from .validation import PEER_RECORDS_KEPT, is_attested, is_tick_over
from .view import RoundIndex

log = get_logger(__name__)

AWAY_PAUSE = 1.0  # seconds between two tries while the federation's store is away
UNREADABLE_PAUSE = 30.0  # seconds between two looks at a run of which something cannot be read
PUSH_PAUSE = 2.0  # seconds between two looks whether a commit has got through
HOLD_BACK = timedelta(seconds=60)  # that a later tick waits for an earlier one's commit to get through
PAGE = 500
ALL_RUNS_QUEUED = ""  # after all runs that there were at the start
T = TypeVar("T")


class Announcer:
    """`runs`: the mirror of those that are active; others are read when they change."""

    def __init__(
        self,
        context: Context,
        works: GitExecutor,
        agreement: DatasetSharing,
        runs: Mirror[Run],
        own: Store,
        heard: PeerRecords,
        rounds: Mirror[Round],
        by_dataset: RoundIndex,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("announcer", conditions)
        self._context = context
        self._works = works
        self._agreement = agreement
        self._runs = runs
        self._stored = RunRecords(own, context.node, unreadable)
        self._heard, self._rounds = heard, rounds
        self._enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment, unreadable)
        self._shared = Records(own, keys.shared_prefix(context.node), Shared, unreadable)
        prefix = f"{keys.peer_root(context.node)}announcements/"
        self._records = Records(heard.mirror.records.store, prefix, Announcement, unreadable)
        self._queue = WorkQueue()
        self._since: dict[str, datetime] = {}
        self._alone: dict[str, bool] = {}  # active run → whether no other node has a say in what it writes
        self._pending: dict[tuple[str, str], PendingAnnouncement] = {}
        self._by_dataset = by_dataset
        self._passed = Watermarks(context, own, by_dataset, self._pending, unreadable, conditions)
        self._some = asyncio.Event()
        runs.subscribe(self._queue.add)
        rounds.subscribe(self._look_for_round)

    @property
    def waiting(self) -> list[Announcement]:
        """What is still to be said."""
        return [each.announcement for each in self._pending.values()]

    @property
    def complete(self) -> bool:
        """Whether all runs that there were at the start have been looked at."""
        return self._passed.begun

    async def run(self) -> None:
        """Works until cancelled."""
        await asyncio.gather(self._runs.synced.wait(), self._rounds.synced.wait())
        await self._heard.mirror.synced.wait()
        await until_done(
            self._passed.load,
            name="announcer",
            conditions=self._conditions,
            away=Backoff(AWAY_PAUSE, AWAY_PAUSE),
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look_for_ever())
                group.create_task(self._say_for_ever())
                group.create_task(self._passed.run())
                await until_done(
                    self._look_at_all,
                    name="announcer",
                    conditions=self._conditions,
                    away=Backoff(AWAY_PAUSE, AWAY_PAUSE),
                )
        finally:
            self._queue.close()

    async def _look_at_all(self) -> None:
        for run_id in reversed(await self._past()):
            self._queue.add(run_id)
        cursor = None
        while True:
            page = await self._stored.page(PAGE, cursor)
            for live in page.items:
                self._queue.add(live.record.id)
            cursor = page.cursor
            if cursor is None:
                self._queue.add(ALL_RUNS_QUEUED)
                return

    async def _past(self) -> list[str]:
        """The runs of the history that may have something to say still, newest first.

        The index alone rules out most, so that not all documents of a month are read at every start.
        """
        oldest = self._context.clock.now() - MAX_TICK_AGE
        steps: dict[str, Sequence[ResolvedStep] | None] = {}
        found: list[str] = []
        async with aclosing(past_runs_since(self._stored, oldest)) as indexed:
            async for each in indexed:
                if each.pipeline not in steps:
                    steps[each.pipeline] = await self._steps_with_rounds(each.pipeline)
                if each.scheduled_for is not None and not self._is_said(each, steps[each.pipeline]):
                    found.append(each.id)
        return found

    async def _steps_with_rounds(self, pipeline: str) -> Sequence[ResolvedStep] | None:
        """The steps of its enrolment, none where nobody shares what they write; None when that is unknown."""
        stored = await self._enrolments.find(pipeline)
        if stored is None:
            return None
        try:
            shared = [await self._agreement.is_shared(each) for each in stored.record.outputs]
        except Unavailable:
            return None
        return stored.record.steps if any(shared) else []

    def _is_said(self, run: IndexedRun, steps: Sequence[ResolvedStep] | None) -> bool:
        """Whether all that such a run brings to rounds has been said, with its commits."""
        if steps is None or run.scheduled_for is None:
            return False
        for step in steps:
            name = round_id(run.scheduled_for, run.pipeline, step.name)
            said = self._heard.announced(step.output.name, name).get(self._context.node)
            if said is None or said.record.commit is None:
                return False
            self._passed.is_ours(said.record)
        return True

    async def _look_for_ever(self) -> None:
        while True:
            run_id = await self._queue.take()
            try:
                if run_id == ALL_RUNS_QUEUED:
                    self._passed.begin()
                else:
                    await self._look(run_id)
                    self._guard.worked(run_id)
            except Unavailable:
                self._queue.add_later(run_id, AWAY_PAUSE)
            except RecordUnreadable as error:  # shown as such
                log.warning("announce.unreadable", run=run_id, code=error.code, error=error.detail)
                self._queue.add_later(run_id, UNREADABLE_PAUSE)
            except Exception as error:  # noqa: BLE001 (of one run)
                self._queue.add_later(run_id, max(UNREADABLE_PAUSE, self._guard.failed(run_id, error)))
            finally:
                self._queue.done(run_id)

    def _look_for_round(self, name: str) -> None:
        """A round that others have opened, or that begins again: perhaps a run brings something to it."""
        stored = self._rounds.get(name)
        if stored is None or stored.record.phase in ROUND_ENDED:
            return
        round_, node = stored.record, self._context.node
        if node not in self._heard.announced(round_.dataset, round_.id):
            self._queue.add(tick_run_id(round_.pipeline, node, round_.tick))

    async def _look(self, run_id: str) -> None:
        """Takes in what a run has to say now."""
        active = self._runs.get(run_id)
        if self._alone.get(run_id, False):
            if active is None:
                del self._alone[run_id]
            return
        stored = active or await self._stored.get(run_id)
        now = self._context.clock.now()
        if stored is None or (tick := stored.record.scheduled_for) is None or now - tick > MAX_TICK_AGE:
            return
        run = stored.record
        steps = [step.spec for step in run.steps] or await self._enrolled(run)
        if run_id not in self._alone or active is None:
            datasets = {step.output.name for step in steps}
            shared = [await self._notice(each, now if active is None else tick) for each in datasets]
            self._alone[run_id] = not any(shared)
        if active is None:
            del self._alone[run_id]
        for due in pending_announcements(run, steps, now):
            self._passed.is_ours(due.announcement)
            if self._is_news(due):
                known = self._pending.get(due.place)
                begun = (
                    due
                    if known is None
                    else replace(due, announcement=_at(due, known.announcement.announced_at))
                )
                self._pending[due.place] = begun
                self._some.set()

    async def _enrolled(self, run: Run) -> Sequence[ResolvedStep]:
        stored = await self._enrolments.get(run.pipeline)
        return [] if stored is None else stored.record.steps

    def forget(self, dataset: str) -> None:
        """That it was shared: its operator has said so."""
        self._since.pop(dataset, None)

    async def _notice(self, dataset: str, since: datetime) -> bool:
        """Remembers from which tick on a dataset has rounds, and when nobody else takes part any more."""
        shared = await self._agreement.is_shared(dataset)
        if shared and dataset in self._since:
            return True
        stored = await self._shared.get(dataset)
        if not shared:
            self._since.pop(dataset, None)
            if stored is not None and not stored.record.apart:
                apart = stored.record.model_copy(update={"apart": True})
                await self._shared.replace(dataset, apart, stored.revision)
            return False
        if stored is None:
            await self._shared.create(dataset, Shared(dataset=dataset, since=since))
        elif stored.record.apart or stored.record.since is None:
            again = stored.record.model_copy(update={"apart": False, "since": since})
            await self._shared.replace(dataset, again, stored.revision)
        stored = await self._shared.get(dataset)
        self._since[dataset] = since if stored is None else stored.record.since or since
        return True

    def _is_news(self, due: PendingAnnouncement) -> bool:
        dataset, round_id = due.place
        stored = self._rounds.get(f"{dataset}/{round_id}")
        if stored is None and due.announcement.tick < self._since.get(dataset, due.announcement.announced_at):
            return False
        if stored is not None and stored.record.phase in ROUND_ENDED and not self._may_begin_again(stored):
            return False
        said = self._heard.announced(dataset, round_id).get(self._context.node)
        if stored is None and said is None and self._is_past(due):
            return False
        return said is None or (said.record.commit is None and due.announcement.commit is not None)

    def _may_begin_again(self, stored: Stored[Round]) -> bool:
        """Whether it is only said to be decided: to put that right takes what the nodes have to say."""
        round_ = stored.record
        if round_.phase != "decided" or self._context.clock.now() - round_.tick > PEER_RECORDS_KEPT:
            return False
        return not is_attested(round_, self._heard.votes(round_))

    def _is_past(self, due: PendingAnnouncement) -> bool:
        """Of a tick without a round, of which this node has said nothing that is still there."""
        if self._passed.covers(due):
            return True
        rounds = reversed(self._by_dataset.of(due.announcement.dataset).values())
        known = (each.record for each in rounds)
        return is_tick_over(due.announcement, due.done_at, known, self._heard.votes)

    # saying

    async def _say_for_ever(self) -> None:
        outage = Outage()
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                left = await self._say_all()
                outage.over()
            except MaoError as error:
                if outage.is_news():
                    log.warning("announce.postponed", waiting=len(self._pending), error=error.detail)
                left, pause = True, AWAY_PAUSE
            except Exception as error:  # noqa: BLE001 (what fails one by one is set aside by `_say_all`)
                self._guard.failed("", error)
                left, pause = True, AWAY_PAUSE
            else:
                self._guard.worked("")
                pause = PUSH_PAUSE
            if left:
                asyncio.get_running_loop().call_later(pause, self._some.set)

    async def _say_all(self) -> bool:
        """Whether something has to wait."""
        ordered = sorted(self._pending.values(), key=_order)
        for dataset, group in groupby(ordered, key=lambda due: due.announcement.dataset):
            with self._guard.item(f"dataset {dataset}"):
                await self._say(dataset, list(group))
        return bool(self._pending)

    async def _say(self, dataset: str, dues: Sequence[PendingAnnouncement]) -> None:
        held: datetime | None = None
        for due in dues:
            if not self._is_news(due):
                self._pending.pop(due.place, None)
                continue
            at = due.announcement.announced_at
            if not due.ready or not await self._is_out(dataset, due.announcement.commit):
                held = held or at
            elif held is None or self._context.clock.now() - at > HOLD_BACK:
                await self._write(due)

    async def _is_out(self, dataset: str, commit: str | None) -> bool:
        return commit is None or await self._works.read(is_at_remote, self._context, dataset, commit)

    async def _write(self, due: PendingAnnouncement) -> None:
        record = due.announcement.model_copy(update={"announced_at": self._context.clock.now()})
        name = f"{record.dataset}/{record.round}"
        if await self._records.create(name, record) is None:
            stored = await self._records.get(name)
            better = stored is not None and stored.record.commit is None and record.commit is not None
            if stored is not None and better:
                await self._records.replace(name, record, stored.revision)
        if self._pending.get(due.place) is due:
            del self._pending[due.place]
        log.info("announced", dataset=record.dataset, round=record.round, commit=record.commit)


def _order(due: PendingAnnouncement) -> tuple[str, datetime, str]:
    return due.announcement.dataset, due.announcement.tick, due.announcement.round


def _at(due: PendingAnnouncement, moment: datetime) -> Announcement:
    return due.announcement.model_copy(update={"announced_at": moment})


def is_at_remote(context: Context, dataset: str, commit: str) -> bool:
    """Whether the remote was seen to have a commit on this node's branch. Blocking."""
    try:
        clone = Clone.open(context.data.clone(dataset))
        tip = clone.tip(context.node, remote=True)
        return tip is not None and clone.contains(tip, commit)
    except (MaoError, RepositoryError):
        return False
