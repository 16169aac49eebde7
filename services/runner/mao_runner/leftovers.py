"""What nobody claims any more: containers of runs that are over, old logs. Only what bears our labels."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mao_shared.clock import Clock
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import Run
from mao_shared.reconcile import Mirror
from mao_shared.workspace import DataDir

from .drivers import Container
from .labels import CHECK, attempt_of
from .metrics import RunnerMetrics
from .observe import Containers
from .slots import runners_step

log = get_logger(__name__)

SWEEP_EVERY = 30.0  # seconds
LOGS_EVERY = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Retention:
    """How long logs are kept: `age` of a run's newest log, and logs of at most `count` runs."""

    age: timedelta
    count: int


class Leftovers:
    """Sweeps now and then; `grace` is how long a container has to have been unclaimed."""

    def __init__(
        self,
        mirror: Mirror[Run],
        containers: Containers,
        *,
        grace: float,
        checks: Callable[[], set[str]],
        metrics: RunnerMetrics,
        clock: Clock,
    ) -> None:
        self._mirror = mirror
        self._containers = containers
        self._grace = timedelta(seconds=grace)
        self._checks = checks
        self._metrics = metrics
        self._clock = clock
        self._since: dict[str, datetime] = {}

    async def run(self) -> None:
        """Sweeps for ever, and again when the grace of something is over."""
        await self._mirror.synced.wait()
        while True:
            await self._containers.synced.wait()
            await self.sweep()
            pause = self._grace.total_seconds() + 0.1 if self._since else SWEEP_EVERY
            await asyncio.sleep(min(pause, SWEEP_EVERY))

    async def sweep(self) -> None:
        """Looks at all containers once and removes those whose grace is over."""
        now = self._clock.now()
        claimed = {name: stored.record for name, stored in self._mirror.items()}
        loose = [each for each in self._containers.all() if unclaimed(each, claimed, self._checks())]
        self._since = {each.id: self._since.get(each.id, now) for each in loose}
        for container in loose:
            if now - self._since[container.id] >= self._grace:
                await self._remove(container)

    async def _remove(self, container: Container) -> None:
        try:
            await self._containers.driver.remove(container.id)
        except MaoError as error:
            log.warning("leftover.not_removed", container=container.name, error=error.detail)
            return
        self._containers.forget(container.name)
        self._since.pop(container.id, None)
        self._metrics.leftovers.inc()
        log.info("leftover.removed", container=container.name, state=container.state)


def unclaimed(container: Container, runs: Mapping[str, Run], checks: set[str]) -> bool:
    """Whether neither a step in a phase of ours nor a check claims the container: pure."""
    if check := container.labels.get(CHECK):
        return check not in checks
    key = attempt_of(container.labels)
    if key is None:
        return False  # none that we made
    run = runs.get(key.run)
    return run is None or runners_step(run) != key.step or run.steps[key.step].attempt != key.attempt


class OldLogs:
    """Removes the logs that retention no longer covers."""

    def __init__(self, mirror: Mirror[Run], data_dir: DataDir, retention: Retention, clock: Clock) -> None:
        self._mirror = mirror
        self._folder = data_dir.run_logs("run").parent
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        await self._mirror.synced.wait()
        while True:
            active = {name for name, _ in self._mirror.items()}
            removed = await asyncio.to_thread(self.remove, active)
            if removed:
                log.info("logs.removed", runs=removed)
            await asyncio.sleep(LOGS_EVERY)

    def remove(self, active: set[str]) -> int:
        """Removes old logs but those of active runs; how many. Blocks."""
        if not self._folder.is_dir():
            return 0
        written = {each: each.stat().st_mtime for each in self._folder.iterdir() if each.is_dir()}
        old = out_of_retention(written, self._clock.now(), self._retention)
        gone = [folder for folder in old if folder.name not in active]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return len(gone)


def out_of_retention(written: Mapping[Path, float], now: datetime, retention: Retention) -> Iterable[Path]:
    """The folders to remove: too old or too many: pure. `written` is in seconds since 1970."""
    newest_first = sorted(written, key=lambda folder: written[folder], reverse=True)
    oldest = (now - retention.age).timestamp()
    return [
        folder
        for place, folder in enumerate(newest_first)
        if place >= retention.count or written[folder] < oldest
    ]
