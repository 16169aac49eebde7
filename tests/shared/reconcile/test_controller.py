"""The queue of keys and the workers of a controller, on the memory store."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import pytest

from mao_shared.conditions import Conditions
from mao_shared.errors import StoreUnavailable
from mao_shared.reconcile import Backoff, Controller
from mao_shared.reconcile.controller import WorkQueue
from tests.support.jobs import NEVER, QUICK, SECONDS, Job, JobBench
from tests.support.waiting import eventually


@pytest.fixture
async def bench() -> AsyncIterator[JobBench]:
    bench = JobBench()
    yield bench
    await bench.stop()
    await bench.store.close()


# --- queue ------------------------------------------------------------------------------------------------


async def test_controller_key_waits_at_most_once_and_not_while_it_is_worked_on() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    queue.add("a")
    queue.add("a")
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not taking.done()
    queue.done("b")
    queue.done("a")
    assert await taking == "a"


async def test_controller_earliest_time_asked_for_counts() -> None:
    queue = WorkQueue()
    queue.add_later("a", NEVER)
    queue.add_later("a", QUICK)
    queue.add_later("a", NEVER)
    assert await asyncio.wait_for(queue.take(), SECONDS) == "a"
    queue.done("a")
    queue.add_later("b", NEVER)
    queue.add("b")
    assert await queue.take() == "b"
    assert not queue._timers


async def test_controller_taker_that_gives_up_takes_nothing_along() -> None:
    queue = WorkQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    taking.cancel()
    await asyncio.wait([taking])
    assert await asyncio.wait_for(queue.take(), SECONDS) == "a"


# --- controller -------------------------------------------------------------------------------------------


class Worker:
    """Count the calls and the most concurrent ones, and hold each until `go` is set."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.now: defaultdict[str, int] = defaultdict(int)
        self.most = 0
        self.most_of_one = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, key: str) -> float | None:
        self.calls[key] += 1
        self.now[key] += 1
        self.most = max(self.most, sum(self.now.values()))
        self.most_of_one = max(self.most_of_one, self.now[key])
        try:
            await self.go.wait()
        finally:
            self.now[key] -= 1
        return None


async def test_controller_many_keys_run_together_and_one_key_alone(bench: JobBench) -> None:
    worker = Worker()
    worker.go.clear()
    names = [f"{n}" for n in range(10)]
    await bench.make(*names)
    bench.start(worker, workers=4)
    await eventually(lambda: sum(worker.calls.values()) == 4)
    await bench.change("0", Job(n=1))
    await bench.change("0", Job(n=2))
    await bench.caught_up()
    assert (worker.most, worker.most_of_one) == (4, 1)
    worker.go.set()
    await eventually(lambda: worker.calls["0"] == 2 and all(worker.calls[name] for name in names))
    assert (worker.most, worker.most_of_one) == (4, 1)


async def test_controller_changes_during_the_work_cause_one_more_pass(bench: JobBench) -> None:
    worker = Worker()
    worker.go.clear()
    await bench.make("a")
    bench.start(worker)
    await eventually(lambda: worker.calls["a"] == 1)
    for n in range(3):
        await bench.change("a", Job(n=n))
    await bench.caught_up()
    worker.go.set()
    await eventually(lambda: worker.calls["a"] == 2 and not worker.now["a"])
    await bench.caught_up()
    assert worker.calls["a"] == 2


async def test_controller_backoff_grows_and_resets_after_success(
    bench: JobBench,
) -> None:
    outcomes: list[Exception | None] = [ValueError("x"), StoreUnavailable("y"), ValueError("z"), None]
    pauses: list[float] = []

    async def work(key: str) -> float | None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return None

    await bench.make("a")
    controller = bench.start(work, backoff=Backoff(0.01, 0.03))
    plain = controller._queue.add_later

    def add_later(key: str, seconds: float) -> None:
        pauses.append(seconds)
        plain(key, seconds)

    controller._queue.add_later = add_later  # type: ignore[method-assign]
    await eventually(lambda: not outcomes)
    await eventually(lambda: not controller._failures)
    for pause, full in zip(pauses, (0.01, 0.02, 0.03), strict=True):
        assert full <= pause <= min(full + 0.01, 0.03)


async def test_controller_very_long_outage_does_not_overflow_the_back_off(bench: JobBench) -> None:
    controller = Controller("jobs", Worker(), backoff=Backoff(QUICK, QUICK))
    controller._failures["a"] = 5000
    controller._retry("a", StoreUnavailable("away"))
    assert await asyncio.wait_for(controller._queue.take(), SECONDS) == "a"


async def test_controller_fault_in_one_worker_leaves_the_others_alone(bench: JobBench) -> None:
    worker = Worker()

    async def work(key: str) -> float | None:
        if key == "bad":
            raise RuntimeError("a bug")
        return await worker(key)

    await bench.make("bad", "a", "b")
    bench.start(work, backoff=Backoff(NEVER, NEVER), workers=1)
    await eventually(lambda: worker.calls["a"] == 1 and worker.calls["b"] == 1)


async def test_controller_change_cuts_a_long_back_off_short(bench: JobBench) -> None:
    calls = 0

    async def work(key: str) -> float | None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise RuntimeError("not yet")
        return None

    await bench.make("a")
    controller = bench.start(work, backoff=Backoff(QUICK, QUICK))
    await eventually(lambda: calls == 4 and not controller._failures)
    calls, controller._backoff = 2, Backoff(QUICK, NEVER)
    controller._failures["a"] = 40
    controller._retry("a", RuntimeError("again"))
    await bench.change("a", Job(n=1))
    await eventually(lambda: calls >= 3)


async def test_controller_seconds_returned_bring_another_pass(bench: JobBench) -> None:
    calls = 0

    async def work(key: str) -> float | None:
        nonlocal calls
        calls += 1
        return QUICK if calls < 3 else None

    await bench.make("a")
    bench.start(work)
    await eventually(lambda: calls == 3)


async def test_controller_resyncs_all_records_periodically(bench: JobBench) -> None:
    worker = Worker()
    await bench.make("a", "b", "over")
    await bench.change("over", Job(over=True))
    bench.start(worker, resync=QUICK)
    await eventually(lambda: worker.calls["a"] > 3 and worker.calls["b"] > 3)
    assert worker.calls["over"] == 0


async def test_controller_deleted_record_gets_a_last_pass(bench: JobBench) -> None:
    worker = Worker()
    await bench.make("a")
    bench.start(worker)
    await eventually(lambda: worker.calls["a"] == 1)
    await bench.jobs.delete("a")
    await eventually(lambda: worker.calls["a"] == 2)
    assert bench.mirror.get("a") is None


async def test_controller_stopping_cancels_workers_and_leaves_nothing(bench: JobBench) -> None:
    worker = Worker()
    worker.go.clear()
    await bench.make("a", "b", "c")
    controller = bench.start(worker, workers=2)
    controller._queue.add_later("later", NEVER)
    await eventually(lambda: sum(worker.calls.values()) == 2)
    await bench.stop()
    assert sum(worker.now.values()) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not controller._queue._timers


async def test_controller_that_was_stopped_can_run_again(bench: JobBench) -> None:
    worker = Worker()
    worker.go.clear()
    await bench.make("a", "b")
    controller = bench.start(worker, workers=2)
    for _ in range(5):
        await eventually(lambda: worker.now["a"] == 1 and worker.now["b"] == 1)
        bench.tasks[1].cancel()
        await asyncio.wait([bench.tasks[1]])
        bench.tasks[1] = asyncio.create_task(controller.run())
    await eventually(lambda: worker.now["a"] == 1 and worker.now["b"] == 1)


async def test_controller_second_controller_on_a_running_mirror_sees_all(bench: JobBench) -> None:
    await bench.make("a", "b")
    await bench.start_mirror()
    worker = Worker()
    bench.tasks.append(asyncio.create_task(Controller("jobs", worker).watches(bench.mirror).run()))
    await eventually(lambda: worker.calls == {"a": 1, "b": 1})


async def test_controller_takes_keys_from_any_source(bench: JobBench) -> None:
    """Keys are added explicitly, listed at each resync, and derived from another mirror's names."""
    worker = Worker()
    listed = ["listed"]

    async def list_keys() -> list[str]:
        return listed

    await bench.start_mirror()
    controller = Controller("loop", worker, list_keys=list_keys, resync=QUICK)
    controller.watches(bench.mirror, lambda name: f"of-{name}" if name != "mine" else None)
    bench.tasks.append(asyncio.create_task(controller.run()))
    controller.add("by hand")
    controller.add_later("later", QUICK)
    await bench.make("mine", "a")
    await eventually(
        lambda: worker.calls["listed"] > 2 and worker.calls.keys() >= {"by hand", "later", "of-a"}
    )
    assert not worker.calls.keys() & {"a", "mine", "of-mine"}
    assert worker.calls["of-a"] == 1


async def test_controller_works_while_its_keys_cannot_be_listed(bench: JobBench) -> None:
    worker, conditions = Worker(), Conditions()

    async def list_keys() -> list[str]:
        raise OSError("no disk")

    controller = Controller("loop", worker, list_keys=list_keys, conditions=conditions)
    bench.tasks.append(asyncio.create_task(controller.run()))
    await eventually(lambda: [condition.subject for condition in conditions.current()] == ["loop"])
    controller.add("a")
    await eventually(lambda: worker.calls["a"] == 1)


async def test_controller_with_one_worker_keeps_the_order() -> None:
    order: list[str] = []

    async def work(key: str) -> None:
        order.append(key)

    async def list_keys() -> list[str]:
        return list("dbca")

    controller = Controller("loop", work, workers=1, list_keys=list_keys, resync=None)
    task = asyncio.create_task(controller.run())
    await eventually(lambda: len(order) == 4)
    task.cancel()
    await asyncio.wait([task])
    assert order == list("dbca")
