"""A failing item is set aside, reported and retried; everything else continues."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mao_git import StorageError
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, Conflict, MaoError, StoreSwitched, StoreUnavailable, Unauthorized
from mao_shared.reconcile import Backoff, Guard, every, follow, in_halves, until_done
from mao_shared.store import Batch
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually

NEVER = 3600.0


def subjects(conditions: Conditions) -> list[str]:
    return sorted(condition.subject for condition in conditions.current() if condition.name == "item-failing")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RecursionError(), OSError(28, "full")])
def test_guard_item_that_fails_is_shown_until_it_works(error: Exception) -> None:
    now, conditions = [0.0], Conditions()
    guard = Guard("loop", conditions, Backoff(10, 40), seconds=lambda: now[0])
    pauses = []
    for _ in range(4):
        with guard.item("bad"):
            raise error
        pauses.append(next(step for step in range(100) if not _waits(guard, now, step)))
    with guard.item("good"):
        pass
    assert subjects(conditions) == ["loop/bad"]
    assert pauses[0] < pauses[1] <= pauses[3] <= 50
    with guard.item("bad"):
        pass
    assert subjects(conditions) == []
    assert not guard.waits("bad")


def _waits(guard: Guard, now: list[float], seconds: float) -> bool:
    began, now[0] = now[0], now[0] + seconds
    waits, now[0] = guard.waits("bad"), began
    return waits


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "has free space"),
        (OSError(errno.EROFS, "Read-only file system"), "is writable"),
        (StorageError("no space left on device", errno.ENOSPC), "has free space"),
        (OSError(errno.EBADF, "Bad file descriptor"), "bug in MAO"),
        (KeyError("x"), "bug in MAO"),
    ],
)
def test_guard_tells_what_to_do_about_the_disk_or_a_fault(error: Exception, words: str) -> None:
    conditions = Conditions()
    Guard("loop", conditions).failed("item", error)
    assert words in conditions.current()[0].next


def test_guard_outage_is_nobodys_fault() -> None:
    conditions = Conditions()
    guard = Guard("loop", conditions)
    with pytest.raises(StoreUnavailable), guard.item("any"):
        raise StoreUnavailable("away")
    assert subjects(conditions) == []


def test_guard_items_that_are_gone_are_forgotten() -> None:
    conditions = Conditions()
    guard = Guard("loop", conditions)
    for name in "abc":
        guard.failed(name, ValueError(name))
    guard.keep({"b"})
    assert subjects(conditions) == ["loop/b"]


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


QUICK = Backoff(0.01, 0.01)


async def test_every_survives_and_reports_failed_step() -> None:
    conditions, calls = Conditions(), 0
    shown: list[list[str]] = []

    async def step() -> float:
        nonlocal calls
        calls += 1
        shown.append(subjects(conditions))
        if calls in (2, 3):
            raise StoreUnavailable("away") if calls == 2 else RuntimeError("a bug")
        return 0.0

    async with running(every(NEVER, step, name="loop", conditions=conditions, away=QUICK, failing=QUICK)):
        await eventually(lambda: calls > 5)
    assert shown[:5] == [[], [], [], ["loop"], []]


async def test_every_outages_are_no_fault_of_the_loop() -> None:
    conditions, calls = Conditions(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        raise Unauthorized("removed")

    loop = every(0.0, step, name="loop", conditions=conditions, away=QUICK, outages=MaoError)
    async with running(loop):
        await eventually(lambda: calls > 2)
        assert subjects(conditions) == []


async def test_every_wake_ends_pause_and_counts_during_step() -> None:
    wake, calls = asyncio.Event(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            wake.set()

    async with running(every(NEVER, step, name="loop", wake=wake)):
        await eventually(lambda: calls == 1)
        wake.set()
        await eventually(lambda: calls == 3)
        assert not wake.is_set()


async def test_every_without_a_period_waits_for_its_wake() -> None:
    wake, calls = asyncio.Event(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1

    async with running(every(None, step, name="loop", wake=wake, initial_delay=None)):
        await asyncio.sleep(0.02)
        assert calls == 0
        wake.set()
        await eventually(lambda: calls == 1)
        await asyncio.sleep(0.02)
        assert calls == 1


async def test_every_wake_does_not_shorten_a_back_off() -> None:
    wake, calls = asyncio.Event(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        wake.set()
        raise StoreUnavailable("away")

    async with running(every(0.0, step, name="loop", wake=wake, away=Backoff(NEVER, NEVER))):
        await eventually(lambda: calls == 1)
        await asyncio.sleep(0.02)
        assert calls == 1


async def test_every_debounce_merges_wakes() -> None:
    wake, calls = asyncio.Event(), 0

    async def step() -> None:
        nonlocal calls
        calls += 1

    async with running(every(None, step, name="loop", wake=wake, initial_delay=None, debounce=0.05)):
        for _ in range(3):
            wake.set()
            await asyncio.sleep(0.005)
        await eventually(lambda: calls == 1)
        await asyncio.sleep(0.1)
        assert calls == 1


class Watched(UnavailableStore):
    """A store whose successive watches end as `ends` says."""

    def __init__(self, *ends: Exception) -> None:
        super().__init__()
        self.ends = list(ends)

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        if self.ends:
            raise self.ends.pop(0)
        async for batch in super().watch(prefix, after=after):
            yield batch


async def test_follow_hands_on_every_change_after_what_start_has_taken_in() -> None:
    store, seen = Watched(), []

    async def start() -> int:
        page = await store.list("/a/")
        seen.append([entry.key for entry in page.entries])
        return page.revision

    await store.create("/a/1", b"")
    take = lambda batch: seen.append([event.key for event in batch])  # noqa: E731
    async with running(follow(store, "/a/", take, start=start, name="loop")):
        await eventually(lambda: len(seen) == 1)
        await store.create("/b/1", b"")
        await store.create("/a/2", b"")
        await eventually(lambda: len(seen) == 2)
    assert seen == [["/a/1"], ["/a/2"]]


async def test_follow_begins_again_after_gaps_and_outages() -> None:
    store = Watched(Compacted(3), StoreSwitched(), StoreUnavailable("away"), RuntimeError("a bug"))
    conditions, batches, gaps = Conditions(), list[Batch](), list[MaoError]()
    loop = follow(
        store,
        "/a/",
        batches.append,
        name="loop",
        on_gap=gaps.append,
        conditions=conditions,
        away=QUICK,
        failing=Backoff(0.05, 0.05),
    )
    async with running(loop):
        await eventually(lambda: subjects(conditions) == ["loop"])
        await eventually(lambda: subjects(conditions) == [])
        await store.create("/a/1", b"")
        await eventually(lambda: [len(batch) for batch in batches] == [0, 0, 0, 0, 0, 1])
    assert [type(gap) for gap in gaps] == [Compacted, StoreSwitched]


async def test_follow_outage_of_the_watch_alone_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A replica may answer listings while the watched store rejects the node."""
    store, begun = Watched(*[StoreUnavailable("away")] * 5), 0

    async def start() -> int:
        nonlocal begun
        begun += 1
        return 0

    async with running(follow(store, "/a/", lambda _: None, start=start, name="loop", away=QUICK)):
        await eventually(lambda: begun > 5)
    assert capsys.readouterr().err.count("loop.waits") == 1


@pytest.mark.parametrize("bad", [set(), {0}, {63}, {7, 8, 40}, set(range(64))])
async def test_in_halves_writes_all_but_the_bad_ones(bad: set[int]) -> None:
    calls = 0

    async def write(batch: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if found := bad & set(batch):
            raise ValueError(f"{min(found)} cannot be written")
        return list(batch)

    written, failed = await in_halves(range(64), write)
    assert sorted(number for batch in written for number in batch) == sorted(set(range(64)) - bad)
    assert {item for item, _ in failed} == bad
    assert calls <= 1 + 14 * len(bad)


async def test_in_halves_passes_an_outage_on() -> None:
    async def write(batch: Sequence[int]) -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await in_halves([1, 2, 3], write)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a bug"), Compacted(3)])
async def test_until_done_begins_again_whatever_was_raised(error: Exception) -> None:
    conditions, outcomes = Conditions(), [error, error, None]

    async def step() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "done"

    assert (
        await until_done(
            step, name="loop", conditions=conditions, away=Backoff(0.01, 5.0), failing=Backoff(1.0, 0.01)
        )
        == "done"
    )
    assert subjects(conditions) == []


async def test_until_done_outage_is_logged_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """A node that joins by a file has no caller to answer, so its log names the next command."""
    failures = [Conflict("the names clash", next="maoctl tool remove x"), None]

    async def step() -> None:
        if error := failures.pop(0):
            raise error

    await until_done(step, name="join-by-file", away=QUICK, outages=MaoError)
    assert 'error="the names clash" next="maoctl tool remove x"' in capsys.readouterr().err
