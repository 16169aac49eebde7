"""A run that waits for ground truth holds no turn, so later ticks are observed under every policy."""

from __future__ import annotations

from typing import Any

import pytest

from mao_scheduler.runs import lifecycle
from mao_shared import keys
from mao_shared.models import CancelRequest, DatasetRef, Failure, Overlap, Retry, Run, StepRun
from mao_shared.models.run import Turn
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Put, Records, Store, dump
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnknownOutcomeStore
from tests.support.waiting import eventually_answers

from .doubles import StoreThatDiesAfter
from .harness import finish_step, run_records, scheduler, wait_phase, wait_run
from .samples import NODE, ManualClock, run

WAITS = "waits for round x of its input, until 2026-11-24T09:00:00Z at most"
POLICIES: list[Overlap] = ["skip", "queue", "replace"]


def reads(step: StepRun, branch: str = "ground-truth") -> StepRun:
    source = DatasetRef(name="artefacts", master="/srv/artefacts.git", branch=branch)
    return step.model_copy(update={"spec": step.spec.model_copy(update={"input": source})})


def two_steps(name: str, minutes: int = 0, branch: str = "ground-truth", **changes: Any) -> Run:
    """Return the run of a tick whose second step reads the ground truth of the first one's output."""
    clock = ManualClock()
    clock.turn(minutes=minutes)
    fields: dict[str, Any] = {"trigger": "schedule", "created_at": clock.now(), "overlap": "skip"}
    made = run(name, steps=2, retry=changes.pop("retry", None), **fields | changes)
    return made.with_step(1, reads(made.steps[1], branch))


async def create(store: Store, *runs: Run) -> None:
    for run_ in runs:
        await store.create(keys.run(NODE, run_.id), dump(run_))


async def change(store: Store, run_id: str, index: int = 1, **changes: Any) -> None:
    """Change a step, or move it to `phase`, as the data manager or the runner does."""
    stored = await run_records(store).get(run_id)
    assert stored is not None
    step = stored.record.steps[index].model_copy(update=changes)
    assert await run_records(store).replace(run_id, stored.record.with_step(index, step), stored.revision)


async def reach_second(store: Store, run_id: str, clock: ManualClock) -> None:
    """Finish the run's first step, so that the second one is to be prepared."""
    await wait_phase(store, run_id, RunPhase.RUNNING)
    await finish_step(store, run_id, clock)
    await wait_run(store, run_id, lambda seen: seen.steps[1].phase is StepPhase.PREPARING)


async def wait_for_round(store: Store, run_id: str, clock: ManualClock) -> None:
    await reach_second(store, run_id, clock)
    await change(store, run_id, waiting=WAITS)


async def turn(store: Store) -> str | None:
    stored = await Records(store, keys.turns_prefix(NODE), Turn).get("crawler")
    return None if stored is None else stored.record.run


async def phase_of(store: Store, run_id: str) -> RunPhase:
    stored = await run_records(store).get(run_id)
    assert stored is not None
    return stored.record.phase


@pytest.mark.parametrize("overlap", POLICIES)
async def test_turns_runs_start_beside_waiting_ones(
    store: Store, clock: ManualClock, overlap: Overlap
) -> None:
    names = [f"r{n}" for n in range(6)]
    async with scheduler(store, clock, leads=True):
        for number, name in enumerate(names):
            await create(store, two_steps(name, number, overlap=overlap))
            await wait_for_round(store, name, clock)
        assert [await phase_of(store, name) for name in names] == [RunPhase.RUNNING] * 6
        for name in names:
            await finish_step(store, name, clock, 1)
            await wait_phase(store, name, RunPhase.SUCCEEDED)


@pytest.mark.parametrize("overlap", POLICIES)
async def test_turns_yielded_run_takes_no_second_turn(
    store: Store, clock: ManualClock, overlap: Overlap
) -> None:
    """Its second step is at work when the next tick is due, which is neither dropped nor delayed."""
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0"))
        await wait_for_round(store, "r0", clock)
        await eventually_answers(lambda: turn_is(store, ""))
        await change(store, "r0", phase=StepPhase.RUNNING, waiting=None)
        await create(store, two_steps("r1", 1, overlap=overlap))
        await wait_phase(store, "r1", RunPhase.RUNNING)
        first = await run_records(store).get("r0")
        assert first is not None
        assert (first.record.cancel, first.record.phase) == (None, RunPhase.RUNNING)


async def turn_is(store: Store, wanted: str | None) -> bool:
    return await turn(store) == wanted


@pytest.mark.parametrize("phase", [StepPhase.READY, StepPhase.RUNNING, StepPhase.PUBLISHING])
async def test_turns_step_without_wait_keeps_turn(store: Store, clock: ManualClock, phase: StepPhase) -> None:
    """As on a node outside a federation: the policy is about work."""
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0"))
        await reach_second(store, "r0", clock)
        await change(store, "r0", phase=phase)
        await create(store, two_steps("r1", 1))
        missed = await wait_phase(store, "r1", RunPhase.MISSED)
    assert missed.reason == "Skipped: the run r0 of the same pipeline was still running."
    assert missed.missed == "overlap"


@pytest.mark.parametrize("waits", [True, False])
async def test_turns_no_tick_is_skipped_while_wait_is_undecided(
    store: Store, clock: ManualClock, *, waits: bool
) -> None:
    async with scheduler(store, clock, leads=True) as made:
        await create(store, two_steps("r0"))
        await reach_second(store, "r0", clock)
        await create(store, two_steps("r1", 1))
        await eventually_answers(lambda: knows(made.run_mirror, "r1"))
        assert await made.controller.reconcile("r1") == lifecycle.YIELD_RETRY
        assert await phase_of(store, "r1") is RunPhase.QUEUED
        if waits:
            await change(store, "r0", waiting=WAITS)
        else:
            await change(store, "r0", phase=StepPhase.READY)
        await wait_phase(store, "r1", RunPhase.RUNNING if waits else RunPhase.MISSED)


async def knows(mirror: Any, name: str) -> bool:
    return mirror.get(name) is not None


@pytest.mark.parametrize("branch", ["node-1", "other"])
async def test_turns_step_without_ground_truth_keeps_turn(
    store: Store, clock: ManualClock, branch: str
) -> None:
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0", branch=branch))
        await wait_for_round(store, "r0", clock)
        await create(store, two_steps("r1", 1))
        await wait_phase(store, "r1", RunPhase.MISSED)


async def test_turns_step_in_backoff_keeps_turn(store: Store, clock: ManualClock) -> None:
    """The back-off is the tick's own work, and the operator limits its duration."""
    retry = Retry(attempts=3, backoff=3600)
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0", retry=retry))
        await reach_second(store, "r0", clock)
        failure = Failure(code="tool-failed", detail="exit code 3", fault="tool")
        await change(store, "r0", phase=StepPhase.FAILED, error=failure)
        await wait_run(store, "r0", lambda seen: seen.steps[1].phase is StepPhase.PENDING)
        await create(store, two_steps("r1", 1))
        await wait_phase(store, "r1", RunPhase.MISSED)


async def test_turns_yielded_run_retries_without_turn(store: Store, clock: ManualClock) -> None:
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0", retry=Retry(attempts=3, backoff=3600)))
        await wait_for_round(store, "r0", clock)
        await eventually_answers(lambda: turn_is(store, ""))
        failure = Failure(code="tool-failed", detail="exit code 3", fault="tool")
        await change(store, "r0", phase=StepPhase.FAILED, error=failure)
        await wait_run(store, "r0", lambda seen: seen.steps[1].phase is StepPhase.PENDING)
        await create(store, two_steps("r1", 1))
        await wait_phase(store, "r1", RunPhase.RUNNING)


async def test_turns_waiting_run_can_be_cancelled(store: Store, clock: ManualClock) -> None:
    async with scheduler(store, clock, leads=True) as made:
        await create(store, two_steps("r0"))
        await wait_for_round(store, "r0", clock)
        await create(store, two_steps("r1", 1))
        await wait_phase(store, "r1", RunPhase.RUNNING)
        await made.runs.cancel("r0", "not needed")
        await change(store, "r0", phase=StepPhase.CANCELLED)
        ended = await wait_phase(store, "r0", RunPhase.CANCELLED)
        assert ended.reason == "not needed"
        assert await turn(store) == "r1"


async def test_turns_given_back_by_another_scheduler(store: Store, clock: ManualClock) -> None:
    """The cached turn is no reason to drop a tick or to cancel a run."""
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r0"))
        await reach_second(store, "r0", clock)
        await store.transact([], [put_turn("")])
        await change(store, "r0", phase=StepPhase.RUNNING)
        await create(store, two_steps("r1", 1, overlap="replace"))
        await wait_phase(store, "r1", RunPhase.RUNNING)
        first = await run_records(store).get("r0")
        assert first is not None
        assert first.record.cancel is None
        await store.transact([], [put_turn("")])
        await create(store, two_steps("r2", 2, overlap="skip"))
        await wait_phase(store, "r2", RunPhase.RUNNING)


def put_turn(name: str) -> Put:
    return Put(keys.turn(NODE, "crawler"), dump(Turn(run=name)))


@pytest.mark.parametrize("there", [None, b"{", b"[]"])
async def test_turns_missing_record_names_last_started_run(clock: ManualClock, there: bytes | None) -> None:
    store = MemoryStore()
    first = lifecycle.start_run(two_steps("r0"), clock.now())
    await create(store, first)
    if there is not None:
        await store.create(keys.turn(NODE, "crawler"), there)
    async with scheduler(store, clock, leads=True):
        await create(store, two_steps("r1", 1))
        await wait_phase(store, "r1", RunPhase.MISSED)
        await wait_for_round(store, "r0", clock)
        await create(store, two_steps("r2", 2))
        await wait_phase(store, "r2", RunPhase.RUNNING)


@pytest.mark.parametrize("writes", range(3))
async def test_turns_killed_at_any_write_loses_and_doubles_nothing(clock: ManualClock, writes: int) -> None:
    """The writes are: the turn is given back; the next run takes it."""
    store = MemoryStore()
    await create(store, two_steps("r0"))
    before = (await store.list(run_records(store).prefix)).revision
    async with scheduler(store, clock, leads=True):
        await reach_second(store, "r0", clock)
    await change(store, "r0", waiting=WAITS)
    await create(store, two_steps("r1", 1))
    async with scheduler(StoreThatDiesAfter(store, writes), clock, leads=True):
        await eventually_answers(lambda: turn_is(store, ["r0", "", "r1"][writes]))
    async with scheduler(store, clock, leads=True):
        await wait_phase(store, "r1", RunPhase.RUNNING)
    assert await begun_after(store, before) == {"r0": 1, "r1": 1}
    assert await turn(store) == "r1"


@pytest.mark.parametrize("overlap", POLICIES)
@pytest.mark.parametrize("applies", [True, False])
async def test_turns_give_back_with_unknown_outcome_is_checked_again(
    clock: ManualClock, overlap: Overlap, *, applies: bool
) -> None:
    store = UnknownOutcomeStore(applies=applies)
    await create(store, two_steps("r0"))
    async with scheduler(store, clock, leads=True):
        await reach_second(store, "r0", clock)
    await change(store, "r0", waiting=WAITS)
    await create(store, two_steps("r1", 1, overlap=overlap))
    store.unsure = 1
    async with scheduler(store, clock, leads=True):
        await wait_phase(store, "r1", RunPhase.RUNNING)


async def test_turns_queued_run_starts_after_dead_scheduler_gave_back(
    clock: ManualClock,
) -> None:
    store = MemoryStore()
    async with scheduler(store, clock, leads=True) as made:
        await create(store, two_steps("r0"))
        await reach_second(store, "r0", clock)
        await create(store, two_steps("r1", 1, overlap="queue"))
        await wait_run(store, "r1", lambda seen: seen.reason is not None)
        assert await made.controller.reconcile("r1") is None
        await store.transact([], [put_turn("")])
        await change(store, "r0", waiting=WAITS)
        await wait_phase(store, "r1", RunPhase.RUNNING)


async def begun_after(store: Store, revision: int) -> dict[str, int]:
    """Return how often each run has moved from queued to running."""
    found: dict[str, int] = {}
    phases: dict[str, RunPhase] = {}
    last = (await store.list(run_records(store).prefix)).revision
    async for batch in store.watch(run_records(store).prefix, after=revision):
        for event in batch:
            assert event.entry is not None
            seen = run_records(store).parse(event.entry).record
            if seen.phase is RunPhase.RUNNING and phases.get(seen.id) is not RunPhase.RUNNING:
                found[seen.id] = found.get(seen.id, 0) + 1
            phases[seen.id] = seen.phase
        if batch[-1].revision >= last:
            return found
    raise AssertionError("unreachable")


async def test_turns_number_of_yielded_runs_is_limited(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "MAX_YIELDED", 2)
    store = MemoryStore()
    async with scheduler(store, clock, leads=True):
        for number in range(3):
            await create(store, two_steps(f"r{number}", number))
            await wait_for_round(store, f"r{number}", clock)
        await create(store, two_steps("r3", 3))
        missed = await wait_phase(store, "r3", RunPhase.MISSED)
        assert missed.reason is not None
        assert "r2 of the same pipeline was still running" in missed.reason
        assert "2 earlier ones wait for ground truth" in missed.reason


def waiting_run(**changes: Any) -> Run:
    made = lifecycle.start_run(two_steps("r0"), ManualClock().now())
    done = made.with_step(0, made.steps[0].model_copy(update={"phase": StepPhase.SUCCEEDED}))
    fields = {"phase": StepPhase.PREPARING, "waiting": WAITS, **changes}
    return done.with_step(1, done.steps[1].model_copy(update=fields))


@pytest.mark.parametrize(
    ("changes", "whether"),
    [
        ({}, True),
        ({"waiting": "dataset x is in use by run y"}, True),
        ({"waiting": None}, False),
        ({"phase": StepPhase.READY}, False),
        ({"phase": StepPhase.PENDING}, False),
        ({"phase": StepPhase.SUCCEEDED}, False),
    ],
)
def test_must_yield(changes: dict[str, Any], *, whether: bool) -> None:
    assert lifecycle.must_yield(waiting_run(**changes)) is whether


def test_decide_replaced_run_is_waited_for() -> None:
    wish = CancelRequest(requested_at=ManualClock().now())
    ending = waiting_run(waiting=None).model_copy(update={"cancel": wish})
    found = lifecycle.decide(two_steps("r1", 1), [ending], ManualClock().now())
    assert (found.run, found.retry_after) == (None, lifecycle.YIELD_RETRY)
