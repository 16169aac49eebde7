"""Every loop of the scheduler survives a failing item, and reports it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mao_scheduler.runs import health_monitor, peer_runs, stuck
from mao_scheduler.scheduler import Scheduler
from mao_scheduler.schedules import timer
from mao_shared.reconcile import recheck_unreadable
from mao_shared.store.memory import MemoryStore
from tests.support.loops import check_loop_survives

from .harness import scheduler
from .samples import ManualClock

pytestmark = pytest.mark.virtual_time

Loop = tuple[object, str, Callable[[], Any], Callable[[], object]]
LOOPS: dict[str, Callable[[Scheduler], Loop]] = {
    "ticks": lambda made: (made.timer, "record_due_ticks", made.timer.run, made.timer._queue.changed.set),
    "marks": lambda made: (made.timer._marks, "save", made.timer.run, made.timer._marks.changed.set),
    "retention": lambda made: (made.retention, "sweep", made.retention.run, lambda: None),
    "publishing": lambda made: (made.publisher, "publish", made.publisher.run, made.publisher._hint.set),
    "late-runs": lambda made: (made.health, "check_late", made.health.run, lambda: None),
    "stuck": lambda made: (made.stuck, "_check", made.stuck.run, lambda: None),
    "unreadable-records": lambda made: (
        made.unreadable,
        "check",
        partial(recheck_unreadable, made.unreadable),
        lambda: None,
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_loops_continue_after_failed_item(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setattr(timer, "SAVE_DELAY", 0.01)
    monkeypatch.setattr(peer_runs, "BATCH_DELAY", 0.01)
    monkeypatch.setattr(stuck, "CHECK_PERIOD", 0.01)
    monkeypatch.setattr(health_monitor, "LATE_PERIOD", 0.01)
    monkeypatch.setattr("mao_shared.reconcile.mirror.RECHECK_PERIOD", 0.01)
    async with scheduler(MemoryStore(), ManualClock()) as made:
        monkeypatch.setattr(made.retention, "_interval", 0.01)
        made.health.caught_up.set()  # as after its first listing
        part, method, run, poke = LOOPS[loop](made)
        assert loop in await check_loop_survives(part, method, run, made.conditions, poke=poke)
