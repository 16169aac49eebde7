"""Containers and logs that nobody claims: which are removed and which stay."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mao_runner.containers.cleanup import LogFolder, LogRetention, LogRetentionPolicy, expired_logs, unclaimed
from mao_runner.drivers.protocol import Container
from mao_shared.clock import SystemClock
from mao_shared.host.data_dir import DataDir
from mao_shared.keys import runs_prefix
from mao_shared.models import Run
from mao_shared.reconcile import Mirror
from mao_shared.states import StepPhase
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore

from .harness import NODE, ready_run

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def container(run: str = "r", step: str = "0", attempt: str = "1", **labels: str) -> Container:
    return Container(
        "id", "name", {"mao.run": run, "mao.step": step, "mao.attempt": attempt, **labels}, "running"
    )


def run_in(phase: StepPhase) -> Run:
    run = ready_run("r")
    return run.with_step(0, run.steps[0].model_copy(update={"phase": phase}))


@pytest.mark.parametrize(
    ("given", "phase", "goes"),
    [
        (container(), StepPhase.RUNNING, False),
        (container(), StepPhase.STARTING, False),
        (container(), StepPhase.EXITED, True),
        (container(), StepPhase.FAILED, True),
        (container(attempt="2"), StepPhase.RUNNING, True),
        (container(step="1"), StepPhase.RUNNING, True),
        (container(run="other"), StepPhase.RUNNING, True),
        (Container("id", "name", {"mao.installation": "x"}, "running"), StepPhase.RUNNING, False),
        (Container("id", "name", {"mao.check": "check-1"}, "running"), StepPhase.RUNNING, False),
        (Container("id", "name", {"mao.check": "check-2"}, "running"), StepPhase.RUNNING, True),
    ],
)
def test_unclaimed(given: Container, phase: StepPhase, goes: bool) -> None:
    assert unclaimed(given, {"r": run_in(phase)}, {"check-1"}) is goes


def test_expired_logs_by_age_number_and_size() -> None:
    written = {
        Path(name): LogFolder((NOW - timedelta(days=days)).timestamp(), size)
        for name, days, size in zip("abcd", (1, 5, 2, 40), (10, 30, 20, 40), strict=True)
    }

    def gone(days: float, count: int, space: int) -> list[str]:
        return [
            path.name
            for path in expired_logs(written, NOW, LogRetentionPolicy(timedelta(days), count, space))
        ]

    assert gone(30, 2, 1000) == ["b", "d"]
    assert gone(30, 9, 1000) == ["d"]
    assert gone(99, 9, 60) == ["d"]
    assert gone(99, 9, 30) == ["b", "d"]
    assert gone(99, 9, 100) == []


def test_log_retention_keeps_logs_of_active_runs(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    mirror = Mirror(Records(MemoryStore(), runs_prefix(NODE), Run))
    for run in ("active", "over"):
        data_dir.run_logs(run).mkdir(parents=True)
        os.utime(data_dir.run_logs(run), (0, 0))
    old_logs = LogRetention(mirror, data_dir, LogRetentionPolicy(timedelta(days=1), 10, 99), SystemClock())
    assert old_logs.remove({"active"}) == 1
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["active"]
    assert (
        LogRetention(
            mirror, DataDir(tmp_path / "none"), LogRetentionPolicy(timedelta(1), 1, 1), SystemClock()
        ).remove(set())
        == 0
    )
