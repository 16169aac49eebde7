"""Periodic backups into a folder, with the newest few kept; the condition `backup` when they fail.

The names in the folder tell when the last one was made, so that a restart makes none too many, and a
folder that was emptied, or is not mounted, is noticed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_datamgmt.settings import DataSettings
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import Run
from mao_shared.reconcile import every
from mao_shared.store import Records, Store

from .collect import node_paths
from .reconcile import Reconciler
from .take import backups_in, prune, take_backup

CONDITION = "backup"
MAX_PAUSE = 60.0  # seconds between two checks of the folder
RETRY = 300.0  # seconds after a failure, unless the period is shorter


log = get_logger(__name__)


def backup_loops(
    settings: DataSettings,
    context: Context,
    executor: GitExecutor,
    own: Store,
    runs: Records[Run],
    conditions: Conditions,
) -> list[Coroutine[Any, Any, None]]:
    """The loops of backups, for the data manager to run."""
    loops = [Reconciler(context, executor, own, runs, conditions).run()]
    if settings.backup_dir is not None:
        backups = BackupSchedule(settings, settings.backup_dir, own, context.clock, conditions)
        loops += [backups.run(), backups.watch()]
    return loops


class BackupSchedule:
    """`run` makes them, `watch` sees to it that it does; both work until cancelled."""

    def __init__(
        self, settings: DataSettings, folder: Path, store: Store, clock: Clock, conditions: Conditions
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._store = store
        self._clock = clock
        self._conditions = conditions
        self._every = timedelta(seconds=settings.backup_every)
        self._retry = min(RETRY, settings.backup_every)
        self._began_at = clock.now()
        self._latest: datetime | None = None

    async def run(self) -> None:
        await every(0.0, self.step, name="backups", conditions=self._conditions)

    async def watch(self) -> None:
        await every(MAX_PAUSE, self.check, name="backups-age", conditions=self._conditions)

    async def step(self) -> float:
        """Makes a backup when one is due; seconds until the next step."""
        try:
            found = await asyncio.to_thread(backups_in, self._folder, self._settings.node)
            self._latest = self._newest(found)
            if (left := self._due_in()) > 0:
                self._clear()
                return min(left, MAX_PAUSE)
            await self._take()
        except (MaoError, OSError) as error:
            await self._report_failure(error)
            return self._retry
        self._clear()
        return min(self._settings.backup_every, MAX_PAUSE)

    async def check(self) -> None:
        """Reports when the last one is twice as old as it should be, whatever prevents the next one."""
        since = self._latest or self._began_at
        reported = any(condition.name == CONDITION for condition in self._conditions.current())
        if self._clock.now() - since > 2 * self._every and not reported:
            self._report(f"The last backup is from {_time(since)}.", "See the data manager's log.")

    def _newest(self, found: list[tuple[datetime, Path]]) -> datetime | None:
        """Backups of the future, from a clock that was ahead, do not count."""
        now = self._clock.now()
        return max((at for at, _ in found if at <= now), default=None)

    def _due_in(self) -> float:
        """Seconds until the next backup; not positive when one is due."""
        if self._latest is None:
            return 0.0
        return (self._latest + self._every - self._clock.now()).total_seconds()

    async def _take(self) -> None:
        node = self._settings.node
        places = node_paths(self._settings)
        taken = await take_backup(node, self._store, places, self._folder, os.environ, self._clock)
        self._latest = taken.header.taken_at
        log.info("backup.taken", path=str(taken.path), bytes=taken.size, revision=taken.header.revision)
        keep, now = self._settings.backup_keep, self._clock.now()
        for path in await asyncio.to_thread(prune, self._folder, node, keep, now):
            log.info("backup.removed", path=str(path))

    async def _report_failure(self, error: MaoError | OSError) -> None:
        if isinstance(error, MaoError):
            why, step = error.detail, error.next
        else:
            why, step = f"{error.filename or self._folder}: {error.strerror or error}.", None
        step = await asyncio.to_thread(_folder_advice, self._folder) or step
        log.warning("backup.failed", folder=str(self._folder), error=why)
        last = "There is none yet" if self._latest is None else f"The last one is from {_time(self._latest)}"
        self._report(f"No backup could be made: {why} {last}.", step or "It is retried automatically.")

    def _report(self, detail: str, step: str) -> None:
        self._conditions.report(CONDITION, str(self._folder), detail=detail, next_step=step)

    def _clear(self) -> None:
        self._conditions.clear(CONDITION, str(self._folder))


def _folder_advice(folder: Path) -> str | None:
    """What the operator has to do about the folder, if anything. Blocking."""
    if not os.path.isdir(folder):  # noqa: PTH112 (it raises nothing)
        return f"Make it (mkdir -m 700 {folder}) or mount it, and let user {os.geteuid()} write there."
    with suppress(OSError):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"Mount {folder} for writing."
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return (
            f"It must belong to the node's user: sudo chown {os.geteuid()} {folder}; sudo chmod 700 {folder}"
        )
    return None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
