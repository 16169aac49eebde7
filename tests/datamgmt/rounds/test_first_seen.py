"""The beginning and closing of rounds by a node's own clock, as pure functions."""

from __future__ import annotations

from datetime import timedelta

from mao_datamgmt.rounds.view import MAX_EXTENSIONS, FirstSeenTimes

from .test_decide import ID, TICK, a_round, closed

MINUTE = timedelta(minutes=1)


class Clock:
    def __init__(self) -> None:
        self.now = TICK
        self.settled = True
        self.since = FirstSeenTimes(lambda: self.now, lambda: self.settled)


def test_first_seen_begins_with_first_mention() -> None:
    clock = Clock()
    clock.since.note_announced("data", ID)
    clock.now += MINUTE
    clock.since.note_record(a_round(opened_at=TICK - 99 * MINUTE))
    assert clock.since.opened("data") == {ID: TICK}
    assert clock.since.opened("other") == {}


def test_first_seen_unknown_for_what_was_there_before() -> None:
    clock = Clock()
    clock.settled = False
    clock.since.note_record(a_round())
    clock.settled = True
    clock.since.note_record(a_round())
    assert clock.since.opened("data") == {}


def test_first_seen_reset_extends_a_few_times() -> None:
    clock = Clock()
    clock.since.note_record(a_round())
    for attempt in range(2, MAX_EXTENSIONS + 5):
        clock.now += MINUTE
        clock.since.note_record(a_round(attempt=attempt))
    assert clock.since.opened("data") == {ID: TICK + MAX_EXTENSIONS * MINUTE}


def test_first_seen_closed_counts_per_attempt() -> None:
    clock = Clock()
    for attempt in (1, 1, 2):
        clock.since.note_record(closed(attempt=attempt))
        clock.now += MINUTE
    assert clock.since.closed("data") == {ID: TICK + 2 * MINUTE}
    clock.since.note_record(a_round(attempt=3))
    assert clock.since.closed("data") == {}
    clock.since.retain("data", [])
    assert clock.since.opened("data") == {}
