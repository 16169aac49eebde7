"""Makes periodic backups into a folder and keeps the newest; reports failures as the condition `backup`.

The time of the last backup is read from the file names, so a restart makes no extra backup, and a
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
CHECK_SECONDS = 60.0  # between two checks of the folder
RETRY_SECONDS = 300.0  # after a failure, unless the period is shorter


log = get_logger(__name__)


def backup_loops(
    settings: DataSettings,
    context: Context,
    executor: GitExecutor,
    own: Store,
    runs: Records[Run],
    conditions: Conditions,
) -> list[Coroutine[Any, Any, None]]:
    """Return the loops that the data manager runs for backups and after a restore."""
    loops = [Reconciler(context, executor, own, runs, conditions).run()]
    if settings.backup_dir is not None:
        backups = BackupSchedule(settings, settings.backup_dir, own, context.clock, conditions)
        loops += [backups.run(), backups.watch()]
    return loops


class BackupSchedule:
    """Makes backups (`run`) and reports when they are overdue (`watch`). Both run until cancelled."""

    def __init__(
        self, settings: DataSettings, folder: Path, store: Store, clock: Clock, conditions: Conditions
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._store = store
        self._clock = clock
        self._conditions = conditions
        self._every = timedelta(seconds=settings.backup_every)
        self._retry = min(RETRY_SECONDS, settings.backup_every)
        self._started_at = clock.now()
        self._latest: datetime | None = None

    async def run(self) -> None:
        await every(0.0, self.step, name="backups", conditions=self._conditions)

    async def watch(self) -> None:
        await every(CHECK_SECONDS, self.check, name="backups-age", conditions=self._conditions)

    async def step(self) -> float:
        """Make a backup if one is due; return the seconds until the next step."""
        try:
            found = await asyncio.to_thread(backups_in, self._folder, self._settings.node)
            now = self._clock.now()
            # Backups dated in the future, from a clock that was ahead, do not count.
            self._latest = max((at for at, _ in found if at <= now), default=None)
            if self._latest is not None and self._latest + self._every > now:
                self._clear()
                return min((self._latest + self._every - now).total_seconds(), CHECK_SECONDS)
            await self._take()
        except (MaoError, OSError) as error:
            if isinstance(error, MaoError):
                reason, next_step = error.detail, error.next
            else:
                reason, next_step = f"{error.filename or self._folder}: {error.strerror or error}.", None
            next_step = await asyncio.to_thread(_folder_advice, self._folder) or next_step
            log.warning("backup.failed", folder=str(self._folder), error=reason)
            latest = (
                "There is none yet" if self._latest is None else f"The last one is from {_time(self._latest)}"
            )
            self._report(
                f"No backup could be made: {reason} {latest}.", next_step or "It is retried automatically."
            )
            return self._retry
        self._clear()
        return min(self._settings.backup_every, CHECK_SECONDS)

    async def check(self) -> None:
        """Report a last backup that is more than twice as old as the period, whatever the cause."""
        since = self._latest or self._started_at
        reported = any(condition.name == CONDITION for condition in self._conditions.current())
        if self._clock.now() - since > 2 * self._every and not reported:
            self._report(f"The last backup is from {_time(since)}.", "See the data manager's log.")

    async def _take(self) -> None:
        node = self._settings.node
        paths = node_paths(self._settings)
        backup = await take_backup(node, self._store, paths, self._folder, os.environ, self._clock)
        self._latest = backup.header.taken_at
        log.info("backup.taken", path=str(backup.path), bytes=backup.size, revision=backup.header.revision)
        keep, now = self._settings.backup_keep, self._clock.now()
        for path in await asyncio.to_thread(prune, self._folder, node, keep, now):
            log.info("backup.removed", path=str(path))

    def _report(self, detail: str, next_step: str) -> None:
        self._conditions.report(CONDITION, str(self._folder), detail=detail, next_step=next_step)

    def _clear(self) -> None:
        self._conditions.clear(CONDITION, str(self._folder))


def _folder_advice(folder: Path) -> str | None:
    """Return what the operator must do to make the folder usable, or None. Blocking."""
    if not os.path.isdir(folder):  # noqa: PTH112 (it never raises)
        return f"Create it (mkdir -m 700 {folder}) or mount it, and let user {os.geteuid()} write to it."
    with suppress(OSError):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"Mount {folder} read-write."
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return (
            f"It must belong to the node's user: sudo chown {os.geteuid()} {folder}; sudo chmod 700 {folder}"
        )
    return None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
