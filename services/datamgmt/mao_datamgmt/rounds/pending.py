"""Derives the announcements of runs to rounds, and keeps watermarks of announced ticks.

A node announces each snapshot once. Announcements and rounds are removed from the federation store a day
after the round's end, but runs may be kept for months. So the node's own store has a watermark for each
pipeline and step. It advances only when this node sees the end of a round, and never past a tick with a
pending announcement, so that after an outage everything is announced, however old. It also has a time, so
that the snapshot of a later backfill or retry for an old tick is announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import (
    Abstention,
    Announcement,
    ResolvedStep,
    Round,
    Run,
    SharedDataset,
    StepRun,
    Watermark,
    round_id,
)
from mao_shared.reconcile import Backoff, Guard, every
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from mao_shared.store import Records, Store, Unreadable

from .decide import MAX_TICK_AGE
from .validation import PEER_RECORDS_KEPT, has_matching_id
from .view import RoundIndex

WATERMARK_SECONDS = 600.0  # between two checks for ended rounds
SETTLED_AFTER = PEER_RECORDS_KEPT / 2  # after a round's end, before any of its records is removed


@dataclass(frozen=True, slots=True)
class PendingAnnouncement:
    """An announcement. `done_at`: when the step or its run ended; `ready`: the commit is on the remote."""

    announcement: Announcement
    done_at: datetime
    ready: bool = True

    @property
    def key(self) -> tuple[str, str]:
        """The dataset and the round."""
        return self.announcement.dataset, self.announcement.round


def pending_announcements(
    run: Run, enrolled: Sequence[ResolvedStep], now: datetime
) -> list[PendingAnnouncement]:
    """Return an announcement for each ended step; none for a run without a tick. Pure.

    `enrolled` are the pipeline's steps, for a missed tick, whose run has none.
    """
    if run.scheduled_for is None or run.reproduces is not None:
        return []
    if run.phase is RunPhase.MISSED:
        absence = Abstention(reason="absent", detail=run.reason or "the tick was missed")
        return [
            PendingAnnouncement(_announcement(run, step, now, abstains=absence), _ended(run))
            for step in enrolled
        ]
    found = (_pending_of_step(run, step, now) for step in run.steps)
    return [pending for pending in found if pending is not None]


def _pending_of_step(run: Run, step: StepRun, now: datetime) -> PendingAnnouncement | None:
    if step.phase is StepPhase.SUCCEEDED and step.quarantined:
        # It did observe something, so its base is no observation of this tick; replaced if it is accepted.
        failed = Abstention(reason="failed", detail=(step.waiting or "the snapshot is quarantined")[:2000])
        done_at = step.times.get(StepPhase.SUCCEEDED, run.created_at)
        return PendingAnnouncement(_announcement(run, step.spec, now, abstains=failed), done_at)
    if step.phase is StepPhase.SUCCEEDED:
        commit = step.snapshot or step.base_commit
        if commit is None:
            return None
        ready = step.pushed or step.snapshot is None  # otherwise its base, which is on the remote
        done_at = step.times.get(StepPhase.SUCCEEDED, run.created_at)
        return PendingAnnouncement(_announcement(run, step.spec, now, commit=commit), done_at, ready)
    if run.phase not in RUN_ENDED and step.phase is not StepPhase.SKIPPED:
        return None
    error = step.error or run.error
    reason = error.detail if error is not None else step.waiting or run.reason or ""
    detail = f"the step ended as {step.phase}" + (f": {reason}" if reason else "")
    abstention = Abstention(reason="failed", detail=detail[:2000])
    return PendingAnnouncement(_announcement(run, step.spec, now, abstains=abstention), _ended(run))


def _ended(run: Run) -> datetime:
    return run.finished_at or run.created_at


def _announcement(
    run: Run,
    step: ResolvedStep,
    now: datetime,
    *,
    commit: str | None = None,
    abstains: Abstention | None = None,
) -> Announcement:
    assert run.scheduled_for is not None  # noqa: S101 (the caller has checked)
    return Announcement(
        dataset=step.output.name,
        round=round_id(run.scheduled_for, run.pipeline, step.name),
        pipeline=run.pipeline,
        step=step.name,
        tick=run.scheduled_for,
        run=run.id,
        commit=commit,
        abstains=abstains,
        announced_at=now,
    )


class Watermarks:
    """Keeps the watermarks. `pending` are this node's announcements; `start` is called once all are known."""

    def __init__(
        self,
        context: Context,
        own: Store,
        index: RoundIndex,
        pending: Mapping[tuple[str, str], PendingAnnouncement],
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._clock = context.clock
        self._index = index
        self._pending = pending
        self._conditions = conditions
        self._guard = Guard("rounds-passed", conditions)
        self._records = Records(own, keys.shared_prefix(context.node), SharedDataset, unreadable)
        self._watermarks: dict[str, dict[str, Watermark]] = {}  # dataset → pipeline/step
        self._tracked: set[tuple[str, str]] = set()  # dataset and pipeline/step
        self._changed: set[str] = set()  # datasets whose watermarks are to be written
        self._wake = asyncio.Event()
        self.started = False
        index.on_removed(lambda round_: self._advance(round_, self._clock.now()))

    def covers(self, pending: PendingAnnouncement) -> bool:
        known = self._watermarks.get(pending.announcement.dataset, {}).get(_series(pending.announcement))
        return (
            known is not None
            and pending.announcement.tick <= known.tick
            and pending.done_at <= known.ended_at
        )

    def track(self, announcement: Announcement) -> None:
        """Keep a watermark for the announcement's pipeline and step."""
        self._tracked.add((announcement.dataset, _series(announcement)))

    def start(self) -> None:
        self.started = True
        self._wake.set()

    async def load(self) -> None:
        """Read the stored watermarks. Raises Unavailable."""
        for name, record in (await self._records.by_name()).items():
            self._watermarks[name] = dict(record.passed)
            self._tracked.update((name, series) for series in record.passed)

    async def run(self) -> None:
        """Update the watermarks until cancelled."""
        await every(
            WATERMARK_SECONDS,
            self._update,
            name="rounds-passed",
            wake=self._wake,
            conditions=self._conditions,
            away=Backoff(1.0, 1.0),
        )

    async def _update(self) -> None:
        self.check()
        for dataset in list(self._changed):
            with self._guard.item(dataset):
                await self._write(dataset)

    def check(self) -> None:
        """Advance past rounds that ended long ago, before they are removed."""
        now = self._clock.now()
        for dataset in {dataset for dataset, _ in self._tracked}:
            for stored in reversed(self._index.of(dataset).values()):  # roughly newest first
                ended = stored.record.ended_at
                if ended is not None and now - ended > SETTLED_AFTER:
                    self._advance(stored.record, now)

    def _advance(self, round_: Round, now: datetime) -> None:
        series, ended = _series(round_), round_.ended_at
        if not self.started or ended is None or (round_.dataset, series) not in self._tracked:
            return
        if not has_matching_id(round_) or max(round_.tick, ended) > now:
            return
        watermarks = self._watermarks.setdefault(round_.dataset, {})
        known = watermarks.get(series) or Watermark(tick=round_.tick, ended_at=ended)
        new = Watermark(tick=max(known.tick, round_.tick), ended_at=max(known.ended_at, ended))
        if new == watermarks.get(series):
            return
        for pending in self._pending.values():  # nothing up to the round's tick may still be pending
            waiting = pending.announcement
            same = waiting.dataset == round_.dataset and _series(waiting) == series
            if same and waiting.tick <= round_.tick:
                return
        watermarks[series] = new
        self._changed.add(round_.dataset)
        self._wake.set()

    async def _write(self, dataset: str) -> None:
        oldest = self._clock.now() - MAX_TICK_AGE - timedelta(days=1)
        watermarks = self._watermarks[dataset].items()
        passed = {series: watermark for series, watermark in watermarks if watermark.tick > oldest}
        await self._records.update(dataset, lambda shared: shared.model_copy(update={"passed": passed}))
        self._changed.discard(dataset)


def _series(of: Round | Announcement) -> str:
    return f"{of.pipeline}/{of.step}"
