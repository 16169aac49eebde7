"""What runs mean for their pipeline: alarms raised once per change of state, and pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from mao_scheduler.runs.health import MAX_PING_AGE, Change, judge, judge_late, late_runs, pings
from mao_scheduler.scheduler import Scheduler
from mao_shared import keys
from mao_shared.models import Alarm, DatasetRef, Failure, Run
from mao_shared.models.check import Quarantine, QuarantineState
from mao_shared.models.notification import Channel, Heartbeat, Message, Notice, PipelineHealth
from mao_shared.models.run import CoveredTicks, MissedWhy
from mao_shared.reconcile import background
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store, dump
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnknownOutcomeStore
from tests.support.waiting import eventually_answers

from .harness import run_records, scheduler
from .samples import NODE, START, ManualClock, run

NEW = PipelineHealth(pipeline="crawler")
WHY = Failure(code="tool-failed", detail="The tool ended with code 1.", next="Read its log.", fault="tool")


def ended(name: str, phase: RunPhase, minute: int, **changes: Any) -> Run:
    """A run that began at a minute and ended 30 seconds later."""
    begun = START + timedelta(minutes=minute)
    fields: dict[str, Any] = {"started_at": begun, "finished_at": begun + timedelta(seconds=30)}
    one = run(name, trigger="schedule", scheduled_for=begun, phase=phase, **{**fields, **changes})
    if phase is RunPhase.FAILED:
        failed = one.steps[0].model_copy(update={"phase": StepPhase.FAILED})
        one = one.with_step(0, failed).model_copy(update={"error": WHY})
    return one


def missed(name: str, minute: int, why: MissedWhy = "late", **changes: Any) -> Run:
    at = START + timedelta(minutes=minute)
    fields: dict[str, Any] = {"finished_at": at, "started_at": None, "missed": why, "reason": "It was late."}
    return ended(name, RunPhase.MISSED, minute, steps=0, schedule="crawler-1", **{**fields, **changes})


class Pipeline:
    """A pipeline whose runs are judged one after another; keeps the alarms as the monitor writes them."""

    def __init__(self) -> None:
        self.health = NEW
        self.alarms: dict[str, Alarm] = {}

    def see(self, *runs: Run) -> None:
        for one in runs:
            now = one.finished_at or START
            self._apply(judge(self.health, one, now))

    def _apply(self, change: Change | None) -> None:
        if change is None:
            return
        self.health = change.health
        for alarm in change.raised:
            assert alarm.id not in self.alarms
            self.alarms[alarm.id] = alarm
        for name, fields in change.changed.items():
            self.alarms[name] = self.alarms[name].model_copy(update=dict(fields))

    def open(self) -> list[str]:
        return [name for name, alarm in self.alarms.items() if alarm.over is None]


FAILED, SUCCEEDED = RunPhase.FAILED, RunPhase.SUCCEEDED


@pytest.mark.parametrize("phase", [RunPhase.FAILED, RunPhase.LOST])
def test_health_failures_in_a_row_are_one_alarm_that_ends_with_a_success(phase: RunPhase) -> None:
    crawler = Pipeline()
    crawler.see(ended("r1", SUCCEEDED, 1), *(ended(f"r{n}", phase, n) for n in (2, 3, 4)))
    assert crawler.open() == ["r2.run-failed"]
    alarm = crawler.alarms["r2.run-failed"]
    assert (alarm.count, alarm.pipeline, alarm.run) == (3, "crawler", "r2")
    assert "r4" in alarm.detail
    assert "(3 in a row)" in alarm.detail
    recovered = ended("r5", SUCCEEDED, 5)
    crawler.see(recovered)
    assert crawler.alarms["r2.run-failed"].over == recovered.finished_at
    assert crawler.health.failures == 0
    crawler.see(ended("r6", phase, 6))
    assert crawler.open() == ["r6.run-failed"]


def test_health_alarm_names_step_dataset_reason_and_next_step() -> None:
    crawler = Pipeline()
    crawler.see(ended("r1", FAILED, 1))
    alarm = crawler.alarms["r1.run-failed"]
    assert (alarm.step, alarm.dataset, alarm.next) == ("step-0", "artefacts", "Read its log.")
    assert alarm.detail == "Run r1 of pipeline crawler failed: The tool ended with code 1."


def test_health_run_that_was_judged_is_not_judged_again() -> None:
    crawler = Pipeline()
    runs = [ended("r1", FAILED, 1), ended("r2", FAILED, 2), ended("r3", SUCCEEDED, 3), ended("r4", FAILED, 4)]
    crawler.see(*runs)
    before = crawler.health
    for start in range(len(runs)):
        for one in runs[start:]:
            assert judge(crawler.health, one, START + timedelta(hours=1)) is None
    assert crawler.health == before


def test_health_clock_set_back_does_not_hide_failures() -> None:
    wrong = NEW.model_copy(update={"judged_at": START + timedelta(days=400), "judged": "r0"})
    assert judge(wrong, ended("r1", FAILED, 1), START + timedelta(minutes=2)) is not None
    assert judge(wrong, ended("r0", FAILED, 1), START + timedelta(minutes=2)) is None


@pytest.mark.parametrize("phase", [RunPhase.CANCELLED, RunPhase.RUNNING, RunPhase.QUEUED])
def test_health_cancelled_and_active_runs_change_nothing(phase: RunPhase) -> None:
    finished = {} if phase is RunPhase.CANCELLED else {"finished_at": None}
    failing = PipelineHealth(pipeline="crawler", failures=1, failing="r0.run-failed")
    for health in (NEW, failing):
        assert judge(health, ended("r1", phase, 1, **finished), START) is None


def test_health_reproduction_says_nothing_about_the_pipeline() -> None:
    original = {"run": "r0", "step": "step-0", "snapshot": "0" * 40}
    again = Run.model_validate({**ended("r1", FAILED, 1).model_dump(), "reproduces": original})
    assert judge(NEW, again, START) is None
    assert pings(again, START, START) == []


@pytest.mark.parametrize("why", ["late", "coalesced", "overlap", "not-enrolled"])
def test_health_missed_ticks_are_one_alarm_that_ends_with_the_next_run(why: MissedWhy) -> None:
    crawler = Pipeline()
    crawler.see(missed("m1", 1, why), missed("m2", 2, why))
    assert crawler.open() == ["m1.run-missed"]
    assert crawler.alarms["m1.run-missed"].count == 2
    assert crawler.alarms["m1.run-missed"].next == "Run missed ticks later: maoctl job backfill crawler-1"
    crawler.see(ended("r3", FAILED, 3))
    assert crawler.open() == ["r3.run-failed"]


def test_health_paused_ticks_are_no_alarm_and_summaries_count() -> None:
    crawler = Pipeline()
    crawler.see(missed("m1", 1, "paused"))
    assert crawler.alarms == {}
    covers = CoveredTicks(since=START, until=START + timedelta(minutes=2), count=40)
    crawler.see(missed("m2", 2, covers=covers))
    assert crawler.alarms["m2.run-missed"].count == 40


def test_health_schedule_too_fast_for_its_pipeline_has_one_alarm() -> None:
    crawler = Pipeline()
    for n in range(0, 20, 2):
        begun = START + timedelta(minutes=n)
        slow = ended(f"r{n}", SUCCEEDED, n, finished_at=begun + timedelta(seconds=90))
        crawler.see(missed(f"m{n + 1}", n + 1, "overlap"), slow)
    assert list(crawler.alarms) == ["m1.run-missed"]
    assert crawler.open() == ["m1.run-missed"]
    crawler.see(ended("r30", SUCCEEDED, 30))
    assert crawler.open() == []


# runs that are late

PATIENCE = timedelta(minutes=5)


def queued(name: str, minute: int, **changes: Any) -> Run:
    at = START + timedelta(minutes=minute)
    return run(name, trigger="schedule", scheduled_for=at, **{"created_at": at, **changes})


def test_late_runs_are_scheduled_ones_whose_tool_has_not_started() -> None:
    now = START + timedelta(minutes=10)
    late = queued("late", 1)
    preparing = queued("preparing", 2, pipeline="other", phase=RunPhase.RUNNING)
    preparing = preparing.with_step(0, preparing.steps[0].move(StepPhase.PREPARING, START))
    begun = queued("begun", 1, pipeline="third", phase=RunPhase.RUNNING)
    times = {StepPhase.PREPARING: START, StepPhase.RUNNING: START}
    begun = begun.with_step(0, begun.steps[0].model_copy(update={"phase": StepPhase.RUNNING, "times": times}))
    others = [
        queued("young", 6, pipeline="fourth"),
        queued("backfilled", 0, pipeline="fifth", created_at=now),
        run("manual", pipeline="sixth", created_at=START),
    ]
    found = late_runs([queued("later", 2), late, preparing, begun, *others], now, PATIENCE)
    assert found == {"crawler": late, "other": preparing}


def test_late_run_that_waits_for_ground_truth_is_not_late() -> None:
    waits = queued("waits", 1, phase=RunPhase.RUNNING)
    spec = waits.steps[0].spec.model_copy(
        update={"input": DatasetRef(name="images", master="/srv/i.git", branch="ground-truth")}
    )
    step = waits.steps[0].model_copy(update={"spec": spec}).move(StepPhase.PREPARING, START)
    assert late_runs([waits.with_step(0, step)], START + timedelta(hours=1), PATIENCE) == {}


def test_late_run_is_one_alarm_while_any_run_is_late() -> None:
    now = START + timedelta(minutes=10)
    raised = judge_late(NEW, queued("r1", 1), now)
    assert raised is not None
    assert [alarm.id for alarm in raised.raised] == ["r1.run-late"]
    assert judge_late(raised.health, queued("r2", 2), now) is None
    over = judge_late(raised.health, None, now)
    assert over is not None
    assert over.changed == {"r1.run-late": {"over": now}}
    assert judge_late(over.health, None, now) is None


# pings


def test_pings_name_start_and_outcome_of_a_run() -> None:
    now = START + timedelta(minutes=2)
    running = ended("r1", RunPhase.RUNNING, 1, finished_at=None)
    assert [ping.id for ping in pings(running, START, now)] == ["r1~crawler~start"]
    for phase, event in [(SUCCEEDED, "success"), (FAILED, "fail"), (RunPhase.CANCELLED, "fail")]:
        found = pings(ended("r1", phase, 1), START, now)
        assert [ping.event for ping in found] == ["start", event]
    assert pings(missed("m1", 1), START, now) == []
    never_started = ended("r1", RunPhase.CANCELLED, 1, started_at=None)
    assert pings(never_started, START, now) == []


@pytest.mark.parametrize("state", ["waiting", "accepted", "discarded"])
def test_pings_say_of_a_quarantined_output_that_it_is_missing(state: QuarantineState) -> None:
    one = ended("r1", SUCCEEDED, 1)
    held = Quarantine(commit="c" * 40, branch="quarantine/node-1", state=state)
    one = one.with_step(0, one.steps[0].model_copy(update={"quarantine": held}))
    assert [ping.event for ping in pings(one, START, START + timedelta(minutes=2))] == ["start", "fail"]


def test_pings_are_not_made_for_what_is_old_or_before_the_heartbeat() -> None:
    one = ended("r1", SUCCEEDED, 1)
    assert pings(one, START, START + MAX_PING_AGE + timedelta(minutes=2)) == []
    assert [ping.event for ping in pings(one, START + timedelta(seconds=70), START)] == ["success"]


# the monitor


@asynccontextmanager
async def monitored(store: Store, clock: ManualClock) -> AsyncIterator[Scheduler]:
    async with scheduler(store, clock) as made, background(made.health.run()):
        yield made


async def alarms_in(store: Store) -> dict[str, Alarm]:
    found = await Records(store, keys.alarms_prefix(NODE), Alarm).all()
    return {stored.record.id: stored.record for stored in found}


async def health_in(store: Store) -> PipelineHealth | None:
    stored = await Records(store, keys.pipeline_healths_prefix(NODE), PipelineHealth).get("crawler")
    return None if stored is None else stored.record


async def end(store: Store, one: Run) -> None:
    """Write a run as queued and then as ended, as the scheduler does."""
    records = run_records(store)
    queued_run = one.model_copy(update={"phase": RunPhase.QUEUED, "finished_at": None})
    revision = await records.create(one.id, queued_run)
    assert revision is not None
    assert await records.replace(one.id, one, revision)


async def count_is(store: Store, count: int) -> None:
    async def reached() -> bool:
        health = await health_in(store)
        return health is not None and health.failures == count

    await eventually_answers(reached)


@pytest.mark.virtual_time
async def test_monitor_alarms_survive_restarts_and_are_raised_once(clock: ManualClock) -> None:
    store = MemoryStore()
    clock.turn(minutes=10)
    await store.create(
        keys.channel(NODE, "mail"), dump(Channel(name="mail", service="mailto", sealed="", created_at=START))
    )
    async with monitored(store, clock):
        await end(store, ended("r1", FAILED, 1))
        await count_is(store, 1)
    await end(store, ended("r2", FAILED, 2))  # ends while the monitor does not run
    for _ in range(3):
        async with monitored(store, clock) as made:
            await made.health.caught_up.wait()
            await count_is(store, 2)
    assert [(alarm.id, alarm.count) for alarm in (await alarms_in(store)).values()] == [("r1.run-failed", 2)]
    notices = await Records(store, keys.notices_prefix(NODE), Notice).all()
    assert [stored.record.alarm for stored in notices] == ["r1.run-failed"]
    async with monitored(store, clock):
        await end(store, ended("r3", SUCCEEDED, 3))
        await count_is(store, 0)
    assert (await alarms_in(store))["r1.run-failed"].over is not None


@pytest.mark.virtual_time
@pytest.mark.parametrize("applies", [True, False])
async def test_monitor_write_with_unknown_outcome_raises_one_alarm(clock: ManualClock, applies: bool) -> None:
    store = UnknownOutcomeStore(applies=applies)
    async with monitored(store, clock) as made:
        await made.health.caught_up.wait()
        await end(store, ended("r1", FAILED, 1))
        store.unsure = 1
        await count_is(store, 1)
    assert list(await alarms_in(store)) == ["r1.run-failed"]


@pytest.mark.virtual_time
async def test_monitor_history_waits_until_ended_runs_are_judged(clock: ManualClock) -> None:
    store = MemoryStore()
    await end(store, ended("r1", FAILED, 1))
    clock.turn(days=1)
    async with scheduler(store, clock) as made, background(made.retention.run()):
        await asyncio.sleep(3600)  # of the loop's time: several passes
        assert len(await run_records(store).all()) == 1
        async with background(made.health.run()):
            await made.health.caught_up.wait()
            await eventually_answers(lambda: _none_left(store), 3600)
    assert list(await alarms_in(store)) == ["r1.run-failed"]


async def _none_left(store: Store) -> bool:
    return not await run_records(store).all()


@pytest.mark.virtual_time
async def test_monitor_pings_are_written_once_through_restarts(clock: ManualClock) -> None:
    store = MemoryStore()
    heartbeat = Heartbeat(pipeline="crawler", shown="http://h/…", sealed="", created_at=START)
    await store.create(keys.heartbeat(NODE, "crawler"), dump(heartbeat))
    clock.turn(minutes=2)
    messages = Records(store, keys.messages_prefix(NODE), Message)

    async def written(count: int) -> bool:
        return len(await messages.all()) == count

    running = ended("r1", RunPhase.RUNNING, 1, finished_at=None)
    async with monitored(store, clock):
        revision = await run_records(store).create(running.id, running)
        await eventually_answers(lambda: written(1))
    assert revision is not None
    assert await run_records(store).replace("r1", ended("r1", SUCCEEDED, 1), revision)
    for _ in range(3):
        async with monitored(store, clock) as made:
            await made.health.caught_up.wait()
            await eventually_answers(lambda: written(2))
    events = [stored.record.event for stored in await messages.all()]
    assert sorted(events) == ["start", "success"]


@pytest.mark.virtual_time
async def test_monitor_late_run_is_reported_until_it_starts(clock: ManualClock) -> None:
    store = MemoryStore()
    waiting = queued("r1", 0)
    revision = await run_records(store).create("r1", waiting)
    assert revision is not None
    async with monitored(store, clock):
        clock.turn(minutes=4)

        async def is_open() -> bool:
            return [alarm.over for alarm in (await alarms_in(store)).values()] == [None]

        async def is_over() -> bool:
            return [alarm.over is not None for alarm in (await alarms_in(store)).values()] == [True]

        clock.turn(minutes=2)
        await eventually_answers(is_open, 120)
        assert await run_records(store).replace("r1", ended("r1", SUCCEEDED, 0), revision)
        await eventually_answers(is_over, 120)
