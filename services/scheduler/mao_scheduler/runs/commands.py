"""Commands on runs: start, get, list, cancel, retry, reproduce, follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from mao_scheduler.enrolments import EnrolmentLookup
from mao_scheduler.schedules.due import is_tick
from mao_scheduler.schedules.new_runs import queued_run
from mao_shared.clock import Clock
from mao_shared.errors import Compacted, Conflict, InvalidInput, NotFound, RecordUnreadable
from mao_shared.models import (
    CancelRequest,
    Enrolment,
    Listing,
    Original,
    Retry,
    Run,
    RunRequest,
    Schedule,
    StepRun,
    Trigger,
    manual_run_id,
)
from mao_shared.models.common import unreadable_items
from mao_shared.reconcile import Mirror
from mao_shared.request_context import current_traceparent
from mao_shared.runs.listing import RunQuery, list_newest
from mao_shared.runs.records import IndexedRun, RunRecords
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from mao_shared.store import Stored
from mao_shared.web.dependencies import Attempt


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Conditions that listed runs must meet; None matches any run. `since`, `until`: see `RunQuery`.

    `ticks` is the record of `schedule`, if it exists. A tick shared by two schedules has one run, which may
    name the other schedule.
    """

    pipeline: str | None = None
    phase: RunPhase | None = None
    schedule: str | None = None
    trigger: Trigger | None = None
    since: datetime | None = None
    until: datetime | None = None
    ticks: Schedule | None = None

    def query(self) -> RunQuery:
        """Return the filter as a query. The index is by pipeline, which for a job is that of its schedule."""
        pipeline = self.pipeline
        if pipeline is None and self.ticks is not None:
            pipeline = self.ticks.pipeline
        narrowed = self.schedule is not None or self.trigger is not None
        return RunQuery(pipeline, self.phase, self.since, self.until, self if narrowed else None)

    def __call__(self, run: Run | IndexedRun) -> bool:
        if self.trigger not in (None, run.trigger):
            return False
        if self.schedule in (None, run.schedule):
            return True
        own, tick = self.ticks, run.scheduled_for  # the run may be of a tick that both schedules share
        if own is None or tick is None or run.covers is not None or run.schedule is None:
            return False
        return run.pipeline == own.pipeline and tick > own.created_at and is_tick(own, tick)


class RunCommands:
    """Commands on the runs of one node."""

    def __init__(
        self, mirror: Mirror[Run], records: RunRecords, enrolments: EnrolmentLookup, clock: Clock
    ) -> None:
        self._mirror = mirror
        self._records = records
        self._enrolments = enrolments
        self._clock = clock

    async def get(self, run_id: str) -> Stored[Run]:
        """Return the run. Raises NotFound (`unknown-run`)."""
        stored = await self._records.get(run_id)
        if stored is None:
            raise NotFound(
                f"There is no run {run_id!r} on this node.",
                code="unknown-run",
                next="List the runs with 'maoctl run list'; old ones are removed by retention.",
            )
        return stored

    async def list(self, limit: int, cursor: str | None, wanted: RunFilter) -> Listing[Run]:
        """List runs, newest first. A filtered page may have fewer than `limit` runs although more follow."""
        page = await list_newest(self._records, limit, cursor, wanted.query())
        unreadable = [
            item.model_copy(update={"name": self._records.name(item.key)})
            for item in unreadable_items(page.unreadable)
        ]
        runs = [stored.record for stored in page.items]
        return Listing(items=runs, cursor=page.cursor, unreadable=unreadable)

    async def start(self, request: RunRequest, attempt: Attempt, request_id: str | None) -> Stored[Run]:
        """Create a manual run, named after the attempt. Raises NotFound or Conflict for the pipeline."""
        enrolment = (await self._enrolments.require(request.name)).record
        run = queued_run(
            manual_run_id(request.name, attempt.at, attempt.token),
            enrolment,
            self._clock.now(),
            "manual",
            scheduled_for=request.scheduled_for,
            request_id=request_id,
        )
        return await self._create(run)

    async def retry(self, run_id: str, attempt: Attempt, request_id: str | None) -> Stored[Run]:
        """Create a run for the same tick with the current enrolment. Raises Conflict (`run-active`, …)."""
        old = (await self.get(run_id)).record
        if old.phase not in RUN_ENDED:
            raise Conflict(
                f"The run {run_id} is still {old.phase}.",
                code="run-active",
                next=f"Wait for it with 'maoctl run wait {run_id}', or cancel it first.",
            )
        if old.reproduces is not None:
            raise Conflict(
                f"The run {run_id} is a reproduction and cannot be retried.",
                code="run-is-reproduction",
                next=f"Reproduce the original again: maoctl run reproduce {old.reproduces.run}",
            )
        run = queued_run(
            manual_run_id(old.pipeline, attempt.at, attempt.token),
            (await self._enrolments.require(old.pipeline)).record,
            self._clock.now(),
            "retry",
            scheduled_for=old.scheduled_for,
            schedule=old.schedule,
            retry_of=old.id,
            request_id=request_id,
        )
        return await self._create(run)

    async def reproduce(
        self, run_id: str, step: str | None, attempt: Attempt, request_id: str | None
    ) -> Stored[Run]:
        """Create a run that repeats a published step, even while its run continues.

        Raises the errors of `make_reproduction` and `check_agreed`, and NotFound or Conflict if this node is
        no longer enrolled in the pipeline, since the runner would refuse it.
        """
        old = (await self.get(run_id)).record
        name = manual_run_id(old.pipeline, attempt.at, attempt.token)
        run = make_reproduction(name, old, step, self._clock.now(), request_id)
        check_agreed(run.steps[0].spec.asked(), (await self._enrolments.require(old.pipeline)).record)
        return await self._create(run)

    async def _create(self, run: Run) -> Stored[Run]:
        run = run.model_copy(update={"traceparent": current_traceparent()})
        revision = await self._records.create(run.id, run)
        if revision is None:
            return await self.get(run.id)  # created by an earlier request of the same attempt
        self._mirror.note(run.id, run, revision)
        return Stored(run, revision)

    async def cancel(self, run_id: str, reason: str) -> Stored[Run]:
        """Request the end of a run; idempotent. Raises Conflict (`run-ended`)."""

        def request_cancel(run: Run) -> Run | None:
            if run.cancel is not None or run.phase is RunPhase.CANCELLED:
                return None
            if run.phase in RUN_ENDED:
                raise Conflict(
                    f"The run {run_id} has ended already: {run.phase}.",
                    code="run-ended",
                    next=f"See it with 'maoctl run show {run_id}'.",
                )
            request = CancelRequest(requested_at=self._clock.now(), reason=reason)
            return run.model_copy(update={"cancel": request})

        stored = await self._records.update(run_id, request_cancel)
        if stored is None:
            return await self.get(run_id)  # raises NotFound
        self._mirror.note(run_id, stored.record, stored.revision)
        return stored

    async def follow(self, run_id: str, seen: int) -> AsyncGenerator[Stored[Run], None]:
        """Yield the run at every change after revision `seen`, until it has ended or is removed.

        Also stops when the record can no longer be read; a new request then gets the error.
        """
        while True:
            stored = await self._records.find(run_id)
            if stored is None:
                return
            if stored.revision != seen:  # also if `seen` comes from another store or was made up
                yield stored
                seen = stored.revision
            if stored.record.phase in RUN_ENDED:
                return
            try:
                async with aclosing(self._changes(run_id, seen)) as changes:
                    async for stored in changes:
                        yield stored
                return
            except Compacted:
                continue

    async def _changes(self, run_id: str, seen: int) -> AsyncGenerator[Stored[Run], None]:
        key = self._records.prefix + run_id
        async with aclosing(self._records.store.watch(key, after=seen)) as batches:
            async for batch in batches:
                for event in (event for event in batch if event.key == key):
                    if event.entry is None:
                        return
                    try:
                        stored = self._records.parse(event.entry)
                    except RecordUnreadable:
                        return
                    yield stored
                    if stored.record.phase in RUN_ENDED:
                        return


def make_reproduction(
    run_id: str, old: Run, step_name: str | None, now: datetime, request_id: str | None = None
) -> Run:
    """Return a queued run of one step, with the image, command, commits and tick of the original.

    It is not published and holds no dataset, so it waits for no other run.

    Raises:
        NotFound: `unknown-step`.
        InvalidInput: `step-needed`: the run has several steps.
        Conflict: `nothing-to-reproduce`: the step has published nothing.
    """
    step = _step_to_reproduce(old, step_name)
    if step.phase is not StepPhase.SUCCEEDED or not step.snapshot or not step.base_commit:
        why = "has published nothing" if step.phase is StepPhase.SUCCEEDED else f"is {step.phase}"
        raise Conflict(
            f"The step {step.spec.name!r} of run {old.id} {why}, so there is nothing to compare with.",
            code="nothing-to-reproduce",
            next=f"Run it again instead: maoctl run retry {old.id}",
        )
    spec = step.spec.model_copy(update={"retry": Retry()})  # no retries, since a caller waits
    fresh = StepRun(spec=spec, base_commit=step.base_commit, input_commit=step.input_commit)
    original = Original(run=old.id, step=spec.name, snapshot=step.snapshot, attempt=step.attempt)
    return Run(
        id=run_id,
        pipeline=old.pipeline,
        node=old.node,
        trigger="reproduce",
        scheduled_for=old.scheduled_for,
        created_at=now,
        overlap="queue",
        steps=[fresh],
        request_id=request_id,
        reproduces=original,
    )


def _step_to_reproduce(run: Run, name: str | None) -> StepRun:
    names = [step.spec.name for step in run.steps]
    if name is None and len(names) == 1:
        return run.steps[0]
    if name is None:
        raise InvalidInput(
            f"The run {run.id} has {len(names)} steps; choose the one to reproduce.",
            code="step-needed",
            next=f"Name one of them with --step: {', '.join(names) or 'it has none'}.",
        )
    if name not in names:
        raise NotFound(
            f"The run {run.id} has no step {name!r}.",
            code="unknown-step",
            next=f"Its steps: {', '.join(names)}.",
        )
    return run.steps[names.index(name)]


def check_agreed(privileges: list[str], enrolment: Enrolment) -> None:
    """Raise Conflict (`not-agreed`) for privileges that the enrolment no longer agrees to."""
    missing = [word for word in privileges if word not in enrolment.agreed]
    if missing:
        raise Conflict(
            f"The step needs privileges that this node no longer agrees to: {', '.join(missing)}.",
            code="not-agreed",
            next=f"Agree to it again: maoctl pipeline enrol {enrolment.pipeline} --agree '{missing[0]}'",
        )
