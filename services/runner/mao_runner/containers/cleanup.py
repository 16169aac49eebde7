"""Removes containers that no run claims, and logs beyond their retention.

A container is removed when its run is known and has ended. If the run is unknown (its record may be
unreadable, or the store may have lost its data), a running container is left running and reported, and an
ended one is kept for ORPHAN_GRACE together with its output.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from mao_runner.drivers.protocol import Container
from mao_runner.labels import CHECK, StepAttempt, labelled_attempt
from mao_runner.metrics import RunnerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger
from mao_shared.models import Run
from mao_shared.reconcile import Backoff, Guard, Mirror, every
from mao_shared.reconcile.loops import ITEM_FAILING
from mao_shared.states import RUN_ENDED, StepPhase

from .engine import ContainerMirror
from .plan import RUNNER_PHASES, runner_step

log = get_logger(__name__)

SWEEP_PERIOD = 30.0  # seconds
LOG_SWEEP_PERIOD = 3600.0  # seconds
ORPHAN_GRACE = timedelta(days=7)  # for which an ended container of an unknown run is kept
ORPHAN = "orphans"  # the loop's name in conditions


@dataclass(frozen=True, slots=True)
class LogRetentionPolicy:
    """Limits for logs: `age` of a run's newest log, `count` of runs, `space` in bytes."""

    age: timedelta
    count: int
    space: int


class ContainerCleanup:
    """Removes containers that were unclaimed for `grace` seconds.

    `checks` returns the names of compliance checks in progress. `keep_log` is awaited before each removal, to
    store the container's output.
    """

    def __init__(
        self,
        mirror: Mirror[Run],
        containers: ContainerMirror,
        *,
        grace: float,
        checks: Callable[[], set[str]],
        metrics: RunnerMetrics,
        clock: Clock,
        keep_log: Callable[[StepAttempt, str], Awaitable[object]] | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._keep_log = keep_log
        self._conditions = conditions
        self._guard = Guard("leftovers", conditions, Backoff(SWEEP_PERIOD, 300.0))
        self._orphans: set[str] = set()
        self._mirror = mirror
        self._containers = containers
        self._grace = timedelta(seconds=grace)
        self._checks = checks
        self._metrics = metrics
        self._clock = clock
        self._since: dict[str, datetime] = {}

    async def run(self) -> None:
        """Sweep until cancelled, also whenever the grace of a container ends."""
        await self._mirror.synced.wait()
        await every(0.0, self._sweep_soon, name="leftovers", conditions=self._conditions)

    async def _sweep_soon(self) -> float:
        await self._containers.synced.wait()
        await self.sweep()
        pause = self._grace.total_seconds() + 0.1 if self._since else SWEEP_PERIOD
        return min(pause, SWEEP_PERIOD)

    async def sweep(self) -> None:
        """Remove all unclaimed containers whose grace is over. Raises Unavailable."""
        now = self._clock.now()
        claimed = {name: stored.record for name, stored in self._mirror.items()}
        loose: list[Container] = []
        for container in self._containers.all():
            try:
                is_loose = unclaimed(container, claimed, self._checks())
            except Exception as error:  # noqa: BLE001 (of one container, which stays)
                self._guard.failed(container.name, error)
                continue
            if is_loose:
                loose.append(container)
            else:  # claimed again
                self._guard.succeeded(container.name)
        self._since = {container.id: self._since.get(container.id, now) for container in loose}
        orphans: set[str] = set()
        for container in loose:
            waited = now - self._since[container.id]
            if waited < self._grace or self._guard.waits(container.name):
                continue
            with self._guard.item(container.name):
                if await self._is_removable(container, waited):
                    await self._remove(container)
                elif container.state == "running":
                    orphans.add(container.name)
        self._guard.keep({container.name for container in self._containers.all()})
        self._report_orphans(orphans)

    async def _is_removable(self, container: Container, waited: timedelta) -> bool:
        """Decide by the run's record in the store: the mirror has only runs in the runner's phases.

        Raises Unavailable.
        """
        key = labelled_attempt(container.labels)
        if key is None:
            return True  # of a compliance check that is no longer in progress
        try:
            stored = await self._mirror.records.get(key.run)
        except RecordUnreadable:
            return False
        if stored is not None and is_over(stored.record, key):
            return True
        return container.state != "running" and waited >= ORPHAN_GRACE

    def _report_orphans(self, orphans: set[str]) -> None:
        """Report running containers whose run is unknown; they are left running."""
        if self._conditions is None:
            return
        for name in orphans - self._orphans:
            self._conditions.report(
                ITEM_FAILING,
                f"{ORPHAN}/{name}",
                detail=f"The container {name} is running, but its run's record is missing or does not claim "
                "it. It is left running.",
                next_step="Restore the record (see record-unreadable), or stop the container: "
                f"{self._containers.driver.program} stop {name}",
            )
        for name in self._orphans - orphans:
            self._conditions.clear(ITEM_FAILING, f"{ORPHAN}/{name}")
        self._orphans = orphans

    async def _remove(self, container: Container) -> None:
        key = labelled_attempt(container.labels)
        if key is not None and container.state == "exited" and self._keep_log is not None:
            await self._keep_log(key, container.id)
        await self._containers.driver.remove(container.id)
        self._containers.forget(container.name)
        self._since.pop(container.id, None)
        self._metrics.leftovers.inc()
        log.info("leftover.removed", container=container.name, state=container.state)


def unclaimed(container: Container, runs: Mapping[str, Run], checks: set[str]) -> bool:
    """Return True if neither a step in a phase of the runner nor a check claims the container (pure)."""
    if check := container.labels.get(CHECK):
        return check not in checks
    key = labelled_attempt(container.labels)
    if key is None:
        return False  # not one of ours
    run = runs.get(key.run)
    return run is None or runner_step(run) != key.step or run.steps[key.step].attempt != key.attempt


def is_over(run: Run, key: StepAttempt) -> bool:
    """Return True if the run's record shows that the container of this attempt is no longer needed (pure).

    A record that is older than the container, as after a restore of the store, does not show that.
    """
    if run.phase in RUN_ENDED:
        return True
    if key.step >= len(run.steps):
        return False
    step = run.steps[key.step]
    if step.attempt != key.attempt:
        return key.attempt < step.attempt
    return step.phase not in {*RUNNER_PHASES, StepPhase.PENDING, StepPhase.PREPARING}


class LogRetention:
    """Removes logs beyond their retention."""

    def __init__(
        self,
        mirror: Mirror[Run],
        data_dir: DataDir,
        retention: LogRetentionPolicy,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._mirror = mirror
        self._folder = data_dir.run_logs("run").parent
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        await self._mirror.synced.wait()
        await every(LOG_SWEEP_PERIOD, self._remove_old, name="old-logs", conditions=self._conditions)

    async def _remove_old(self) -> None:
        active = {name for name, _ in self._mirror.items()} | self._mirror.unreadable
        removed = await asyncio.to_thread(self.remove, active)
        if removed:
            log.info("logs.removed", runs=removed)

    def remove(self, active: set[str]) -> int:
        """Remove expired logs, except those of active runs; return the number of runs. Blocks."""
        if not self._folder.is_dir():
            return 0
        written: dict[Path, LogFolder] = {}
        for folder in self._folder.iterdir():
            with suppress(OSError):  # just removed, or not accessible; the others are still considered
                if folder.is_dir():
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    written[folder] = LogFolder(folder.stat().st_mtime, size)
        old = expired_logs(written, self._clock.now(), self._retention)
        gone = [folder for folder in old if folder.name not in active]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return len(gone)


class LogFolder(NamedTuple):
    """A run's log folder: `at` in seconds since 1970, `size` in bytes."""

    at: float
    size: int


def expired_logs(
    written: Mapping[Path, LogFolder], now: datetime, retention: LogRetentionPolicy
) -> Iterable[Path]:
    """Return the folders beyond the policy's age, count or space (pure); the oldest are removed first."""
    newest_first = sorted(written, key=lambda folder: written[folder].at, reverse=True)
    oldest = (now - retention.age).timestamp()
    sizes = accumulate(written[folder].size for folder in newest_first)
    return [
        folder
        for place, (folder, size) in enumerate(zip(newest_first, sizes, strict=True))
        if place >= retention.count or written[folder].at < oldest or size > retention.space
    ]
