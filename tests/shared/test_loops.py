"""One failing item is set aside, shown and tried again; everything else goes on."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence

import pytest

from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, StoreUnavailable
from mao_shared.loops import Guard, for_ever, in_halves, until_done
from tests.support.waiting import eventually


def subjects(conditions: Conditions) -> list[str]:
    return sorted(each.subject for each in conditions.current() if each.name == "item-failing")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RecursionError(), OSError(28, "full")])
def test_guard_item_that_fails_is_shown_until_it_works(error: Exception) -> None:
    now, conditions = [0.0], Conditions()
    guard = Guard("loop", conditions, first=10, most=40, seconds=lambda: now[0])
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
        (OSError(errno.ENOSPC, "No space left on device"), "has room"),
        (OSError(errno.EROFS, "Read-only file system"), "takes writes"),
        (OSError(errno.EBADF, "Bad file descriptor"), "fault of MAO"),
        (KeyError("x"), "fault of MAO"),
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


async def test_for_ever_survives_what_its_step_raises_and_says_so() -> None:
    conditions, calls = Conditions(), 0
    shown: list[list[str]] = []

    async def step() -> float:
        nonlocal calls
        calls += 1
        shown.append(subjects(conditions))
        if calls in (2, 3):
            raise StoreUnavailable("away") if calls == 2 else RuntimeError("a bug")
        return 0.0

    task = asyncio.create_task(for_ever("loop", step, conditions=conditions, away=0.01, longest=0.01))
    await eventually(lambda: calls > 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shown[:5] == [[], [], [], ["loop"], []]


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
    assert sorted(each for batch in written for each in batch) == sorted(set(range(64)) - bad)
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

    assert await until_done("loop", step, conditions=conditions, away=0.01, longest=0.01) == "done"
    assert subjects(conditions) == []
