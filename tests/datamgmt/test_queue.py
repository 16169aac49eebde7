"""A change wakes only the steps that it may unblock, however many wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mao_datamgmt.steps.queue import WaitQueue

from .world import BEGIN

MANY = 300
HOUR = timedelta(hours=1)


class Woken(WaitQueue):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []
        self.wake = self.runs.append

    def taken(self) -> list[str]:
        """Return the steps woken since the last call."""
        taken = sorted(self.runs)
        self.runs.clear()
        return taken


@pytest.fixture
def waits() -> Woken:
    return Woken()


def stamp(number: int) -> str:
    return f"{BEGIN + number * HOUR:%Y%m%dT%H%M%SZ}"


def many_wait(waits: WaitQueue) -> None:
    for number in range(MANY):
        waits.wait_for_round(f"r{number}", "data", BEGIN + number * HOUR)


def test_wait_queue_round_wakes_those_of_its_tick(waits: Woken) -> None:
    many_wait(waits)
    waits.wait_for_round("other", "else", BEGIN)
    waits.taken()
    waits.round_changed(f"data/{stamp(7)}-crawl-collect")
    assert waits.taken() == ["r7"]
    waits.round_changed(f"data/{stamp(7)}-another-pipeline")
    assert waits.taken() == ["r7"]
    waits.round_changed(f"else/{stamp(7)}-crawl-collect")
    assert waits.taken() == []
    waits.stop_waiting("r7")
    waits.round_changed(f"data/{stamp(7)}-crawl-collect")
    assert waits.taken() == []


def test_wait_queue_ended_run_wakes_no_waiter_for_rounds(waits: Woken) -> None:
    many_wait(waits)
    waits.taken()
    for number in range(MANY):
        waits.run_changed(f"r{number}")
    assert waits.taken() == []


def test_wait_queue_run_wakes_the_first_in_line_for_each_dataset(waits: Woken) -> None:
    for number in reversed(range(MANY)):
        waits.wait_for_dataset(f"r{number:03}", "data", (True, BEGIN + number * HOUR, f"r{number:03}"))
    assert waits.wait_for_dataset("young", "data", (False, BEGIN + MANY * HOUR, "young"))
    assert waits.wait_for_dataset("else", "else", (False, BEGIN, "else"))
    assert not waits.wait_for_dataset("last", "data", (True, BEGIN + MANY * HOUR, "last"))
    waits.run_changed("somebody")
    assert waits.taken() == ["else", "young"]
    waits.stop_waiting("young")
    assert waits.taken() == ["r000"]
    waits.run_changed("young")
    assert waits.taken() == ["else", "r000"]


def test_wait_queue_cancelled_first_wakes_the_next(waits: Woken) -> None:
    """The next one is woken even if the first was cancelled, after which nothing else changes."""
    for number in range(3):
        waits.wait_for_dataset(f"r{number}", "data", (True, BEGIN + number * HOUR, f"r{number}"))
    waits.wait_for_dataset("r0", "data", (True, BEGIN, "r0"))
    assert waits.taken() == []
    waits.stop_waiting("r1")
    assert waits.taken() == []
    waits.stop_waiting("r0")
    assert waits.taken() == ["r2"]
    waits.wait_for_round("r2", "in", BEGIN)
    assert waits.taken() == []


def test_wait_queue_held_run_lets_the_next_pass_once(waits: Woken) -> None:
    waits.wait_for_dataset("younger", "data", (True, BEGIN, "younger"))
    waits.wait_for_round("older", "in", BEGIN)
    assert waits.taken() == ["younger"]
    waits.wait_for_round("older", "in", BEGIN)
    assert waits.taken() == []
    assert waits.held_back() == {"older"}


def test_wait_queue_later_tick_is_woken_by_the_earlier_only(waits: Woken) -> None:
    for number in range(1, MANY):
        waits.wait_behind(f"r{number}", f"r{number - 1}")
    waits.taken()
    waits.run_changed("r4")
    assert waits.taken() == ["r5"]
    assert len(waits.held_back()) == MANY - 1


def test_wait_queue_freed_disk_wakes_all(waits: Woken) -> None:
    waits.wait_for_space("a")
    waits.wait_for_space("b")
    waits.run_changed("somebody")
    assert waits.taken() == ["a", "b"]


def test_wait_queue_participation_wakes_all_rounds_of_the_dataset(waits: Woken) -> None:
    waits.wait_for_round("a", "data", BEGIN)
    waits.wait_for_round("b", "data", BEGIN + HOUR)
    waits.wait_for_round("c", "else", BEGIN)
    waits.taken()
    waits.peer_record_changed("node-2/parts/data")
    assert waits.taken() == ["a", "b"]
    waits.peer_record_changed("node-2/announcements/data/x")
    assert waits.taken() == []


def test_wait_queue_run_waits_for_one_thing_at_a_time(waits: Woken) -> None:
    waits.wait_for_round("a", "data", BEGIN)
    waits.wait_for_dataset("a", "data", (True, BEGIN, "a"))
    assert (len(waits), waits.held_back()) == (1, set())
    waits.wait_for_space("a")
    waits.wait_behind("a", "b")
    assert (len(waits), waits.held_back()) == (1, {"a"})
    waits.stop_waiting("a")
    assert len(waits) == 0
