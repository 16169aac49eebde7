"""Every loop of the runner survives a failing item, and reports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers import cleanup, engine
from mao_runner.containers.cleanup import ContainerCleanup, LogRetention, LogRetentionPolicy
from mao_runner.runner import Runner
from mao_shared.clock import SystemClock
from mao_shared.host.data_dir import DataDir
from mao_shared.service.store_health import StoreHealthWatch
from tests.support.loops import check_loop_survives

from .doubles import PromptDriver
from .harness import Bench

Loop = tuple[object, str, Callable[[], Any]]


def _leftovers(runner: Runner) -> Loop:
    made = ContainerCleanup(
        runner.mirror,
        runner.containers,
        grace=0.01,
        checks=set,
        metrics=runner._metrics,
        clock=SystemClock(),
        conditions=runner.conditions,
    )
    return made, "sweep", made.run


def _old_logs(runner: Runner) -> Loop:
    keeps = LogRetentionPolicy(age=cleanup.ORPHAN_GRACE, count=1, space=1)
    made = LogRetention(runner.mirror, DataDir(runner._data_dir), keeps, SystemClock(), runner.conditions)
    return made, "_remove_old", made.run


def _store_watch(runner: Runner) -> Loop:
    made = StoreHealthWatch(runner.mirror.records.store, runner.conditions, 1 << 30)
    return made, "check", made.run


LOOPS: dict[str, Callable[[Runner], Loop]] = {
    "engine-events": lambda runner: (runner.containers, "_follow", runner.containers.run),
    "engine-asks": lambda runner: (runner.containers, "resync", runner.containers.run_resync),
    "engine-watch": lambda runner: (runner.engine_monitor, "check", runner.engine_monitor.run),
    "leftovers": _leftovers,
    "old-logs": _old_logs,
    "store-watch": _store_watch,
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_loops_continue_after_failed_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    for module, names in (
        (engine, ("RESYNC_PERIOD", "LIST_RETRY", "CHECK_PERIOD")),
        (cleanup, ("SWEEP_PERIOD", "LOG_SWEEP_PERIOD")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 0.01)
    async with Bench(tmp_path, PromptDriver()).runner() as runner:
        part, method, run = LOOPS[loop](runner)
        assert loop in await check_loop_survives(part, method, run, runner.conditions)
