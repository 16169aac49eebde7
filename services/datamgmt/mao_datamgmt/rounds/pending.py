"""What runs have to announce to rounds, and the watermark up to which all of it has been announced.

What a run brings to rounds: pure.

Up to which tick this node has said all that it had to say of a pipeline's step, and the rounds have ended.

A node says each thing once. That it has said a thing is known as long as it lies in the federation's store;
from there it goes a day after the round's end, and with it the round, while the run may stay for months. So
what has passed is written down in the node's own store, where nobody else writes and where the runs lie that
it is about: what becomes of one becomes of the other. Only an end that this node has seen moves it, and never
past a tick of which it has something to say: after an outage it is all said, however old. It is about what
was done by then: what a backfill or another try brings to an old tick is news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import (
    Abstention,
    Announcement,
    Passage,
    ResolvedStep,
    Round,
    Run,
    Shared,
    StepRun,
    round_id,
)
from mao_shared.reconcile import Backoff, Guard, every, wait_at_most
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from mao_shared.store import Records, Store, Unreadable

from .decide import MAX_TICK_AGE
from .validation import PEER_RECORDS_KEPT, has_matching_id
from .view import RoundIndex


@dataclass(frozen=True, slots=True)
class PendingAnnouncement:
    """An announcement to make. `done_at`: since when there is something to say.

    `ready`: False while its commit is on this node only.
    """

    announcement: Announcement
    done_at: datetime
    ready: bool = True

    @property
    def place(self) -> tuple[str, str]:
        return self.announcement.dataset, self.announcement.round


def pending_announcements(
    run: Run, enrolled: Sequence[ResolvedStep], now: datetime
) -> list[PendingAnnouncement]:
    """What is to be said for each step that has ended; nothing for a run that belongs to no tick.

    `enrolled`: the pipeline's steps, for a tick that was missed and has none itself.
    """
    if run.scheduled_for is None or run.reproduces is not None:
        return []
    if run.phase is RunPhase.MISSED:
        why = Abstention(reason="absent", detail=run.reason or "the tick was missed")
        return [
            PendingAnnouncement(_announcement(run, step, now, abstains=why), _ended(run)) for step in enrolled
        ]
    found = (_of_step(run, step, now) for step in run.steps)
    return [each for each in found if each is not None]


def _of_step(run: Run, step: StepRun, now: datetime) -> PendingAnnouncement | None:
    if step.phase is StepPhase.SUCCEEDED:
        commit = step.snapshot or step.base_commit
        if commit is None:
            return None
        ready = step.pushed or step.snapshot is None  # what it was laid from is at the remote
        done_at = step.times.get(StepPhase.SUCCEEDED, run.created_at)
        return PendingAnnouncement(_announcement(run, step.spec, now, commit=commit), done_at, ready)
    if run.phase not in RUN_ENDED and step.phase is not StepPhase.SKIPPED:
        return None
    return PendingAnnouncement(
        _announcement(run, step.spec, now, abstains=_abstention(run, step)), _ended(run)
    )


def _ended(run: Run) -> datetime:
    return run.finished_at or run.created_at


def _abstention(run: Run, step: StepRun) -> Abstention:
    error = step.error or run.error
    said = error.detail if error is not None else step.waiting or run.reason or ""
    detail = f"the step ended as {step.phase}" + (f": {said}" if said else "")
    return Abstention(reason="failed", detail=detail[:2000])


def _announcement(
    run: Run,
    step: ResolvedStep,
    now: datetime,
    *,
    commit: str | None = None,
    abstains: Abstention | None = None,
) -> Announcement:
    assert run.scheduled_for is not None  # noqa: S101 (the caller has looked)
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


log = get_logger(__name__)
WATERMARK_PERIOD = 600.0  # seconds between two looks at what has ended
PAUSE = 1.0  # seconds between two tries while the node's own store is away
SETTLED_AFTER = PEER_RECORDS_KEPT / 2  # before that nothing of a round has gone


class Watermarks:
    """`pending`: what this node has still to say. `begin` is called once that is complete."""

    def __init__(
        self,
        context: Context,
        own: Store,
        rounds: RoundIndex,
        pending: Mapping[tuple[str, str], PendingAnnouncement],
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("rounds-passed", conditions)
        self._clock = context.clock
        self._records = Records(own, keys.shared_prefix(context.node), Shared, unreadable)
        self._rounds = rounds
        self._pending = pending
        self._passed: dict[str, dict[str, Passage]] = {}  # dataset → pipeline/step
        self._ours: set[tuple[str, str]] = set()
        self.begun = False
        self._new: set[str] = set()  # datasets of which something is to be written down
        self._some = asyncio.Event()
        rounds.on_gone(self._gone)

    def covers(self, due: PendingAnnouncement) -> bool:
        known = self._passed.get(due.announcement.dataset, {}).get(_series(due.announcement))
        return known is not None and due.announcement.tick <= known.tick and due.done_at <= known.ended_at

    def is_ours(self, said: Announcement) -> None:
        """Takes note that this node has something to say in such rounds: of others nothing is kept."""
        self._ours.add((said.dataset, _series(said)))

    def begin(self) -> None:
        self.begun = True
        self._some.set()

    async def load(self) -> None:
        """Raises Unavailable."""
        for name, record in (await self._records.by_name()).items():
            self._passed[name] = dict(record.passed)
            self._ours.update((name, each) for each in record.passed)

    async def run(self) -> None:
        """Works until cancelled."""
        await every(
            0.0, self._keep, name="rounds-passed", conditions=self._conditions, away=Backoff(PAUSE, PAUSE)
        )

    async def _keep(self) -> None:
        await wait_at_most(self._some, WATERMARK_PERIOD)
        self._some.clear()
        try:
            self.look()
            await self._write_down()
        except Exception:
            self._some.set()
            raise

    def look(self) -> None:
        """Takes in what has ended long enough ago, before it goes while this node is down."""
        now = self._clock.now()
        for dataset in {dataset for dataset, _ in self._ours}:
            for each in reversed(self._rounds.of(dataset).values()):  # the newest first, by and large
                ended = each.record.ended_at
                if ended is not None and now - ended > SETTLED_AFTER:
                    self._pass(each.record, now)

    def _gone(self, round_: Round) -> None:
        self._pass(round_, self._clock.now())

    def _pass(self, round_: Round, now: datetime) -> None:
        of, ended = _series(round_), round_.ended_at
        if not self.begun or ended is None or (round_.dataset, of) not in self._ours:
            return
        if not has_matching_id(round_) or max(round_.tick, ended) > now:
            return
        passed = self._passed.setdefault(round_.dataset, {})
        known = passed.get(of) or Passage(tick=round_.tick, ended_at=ended)
        new = Passage(tick=max(known.tick, round_.tick), ended_at=max(known.ended_at, ended))
        if new == passed.get(of) or self._has_to_say(round_):
            return
        passed[of] = new
        self._new.add(round_.dataset)
        self._some.set()

    def _has_to_say(self, round_: Round) -> bool:
        pending = (due.announcement for due in self._pending.values())
        return any(
            said.dataset == round_.dataset and _series(said) == _series(round_) and said.tick <= round_.tick
            for said in pending
        )

    async def _write_down(self) -> None:
        oldest = self._clock.now() - MAX_TICK_AGE - timedelta(days=1)
        for dataset in list(self._new):
            with self._guard.item(dataset):
                await self._write_of(dataset, oldest)

    async def _write_of(self, dataset: str, oldest: datetime) -> None:
        stored = await self._records.get(dataset)
        passed = {of: each for of, each in self._passed[dataset].items() if each.tick > oldest}
        if stored is not None and stored.record.passed != passed:
            record = stored.record.model_copy(update={"passed": passed})
            if await self._records.replace(dataset, record, stored.revision) is None:
                self._some.set()
                return
        self._new.discard(dataset)


def _series(of: Round | Announcement) -> str:
    return f"{of.pipeline}/{of.step}"
