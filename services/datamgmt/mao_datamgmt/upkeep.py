"""Periodic maintenance: removes old workspaces and alarms, packs clones."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mao_git import Clone, RepositoryError
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Run
from mao_shared.reconcile import Guard, Mirror, every

from .context import Context
from .datasets.clones import dataset_names, sweep_old_locks
from .git_executor import GitExecutor
from .monitoring.alarms import Alarms
from .settings import DataSettings
from .steps import workspaces

log = get_logger(__name__)

PERIOD_SECONDS = 600.0


class Upkeep:
    """Removes old folders and alarms, and packs clones.

    `active` are the runs that have not ended; their workspaces are kept.
    """

    def __init__(
        self,
        settings: DataSettings,
        context: Context,
        executor: GitExecutor,
        active: Mirror[Run],
        alarms: Alarms,
        conditions: Conditions,
    ) -> None:
        self._settings, self._context, self._executor = settings, context, executor
        self._active, self._alarms = active, alarms
        self._conditions, self._guard = conditions, Guard("retention", conditions)

    async def run(self) -> None:
        """Run until cancelled."""
        await self._active.synced.wait()
        await every(PERIOD_SECONDS, self._step, name="retention", conditions=self._conditions)

    async def _step(self) -> None:
        await self.run_once()
        log_swept(await self._executor.read(sweep_old_locks, self._context.data))

    async def run_once(self) -> None:
        """Run each task once. A failure is reported as a condition and does not block the others."""
        now, age = self._context.clock.now(), timedelta(days=self._settings.keep_workspaces_days)
        stored = await self._executor.read(workspaces.list_stored, self._context.data)
        active = {
            name for name, _ in self._active.items()
        } | self._active.unreadable  # listed last, as a run may be new
        expired = workspaces.expired(stored, active, now, age, self._settings.keep_workspaces)
        await self._executor.read(self._remove_workspaces, expired)
        oldest = now - timedelta(days=self._settings.keep_alarms_days)
        await self._guarded("alarms", self._alarms.retain(oldest, self._settings.keep_alarms))
        datasets = await self._executor.read(dataset_names, self._context.data)
        self._guard.keep({"alarms", *datasets})
        for dataset in datasets:
            await self._guarded(dataset, self._executor.write([dataset], tidy, self._context, dataset, age))

    async def _guarded(self, item: str, task: Awaitable[object]) -> None:
        try:
            with self._guard.item(item):
                await task
        except Unavailable as error:  # retried in the next period
            log.warning("retention.not_done", what=item, code=error.code)

    def _remove_workspaces(self, runs: list[str]) -> None:
        for run in runs:
            try:
                workspaces.remove_tree(self._context.data.run_workspaces(run))
            except OSError as error:  # files of another user, for instance of a tool that ran as root
                log.warning("workspace.not_removed", run=run, error=str(error))
            else:
                log.info("workspace.expired", run=run)


def tidy(context: Context, dataset: str, age: timedelta) -> None:
    """Pack a dataset's clone if needed, and remove an unused worktree. Blocking.

    Nothing else may change the dataset meanwhile. A failure is logged; it loses no data.
    """
    try:
        clone = Clone.open(context.data.clone(dataset))
        if clone.needs_packing():
            log.info("clone.packed", dataset=dataset, objects=clone.pack())
        worktree = context.data.worktree(dataset)
        if worktree.is_dir():
            changed_at = datetime.fromtimestamp(worktree.stat().st_mtime, UTC)
            if context.clock.now() - changed_at > age:
                workspaces.remove_tree(worktree)
                log.info("worktree.expired", dataset=dataset)
    except (MaoError, RepositoryError, OSError) as error:
        log.warning("dataset.not_tidied", dataset=dataset, error=str(error))


def log_swept(paths: list[Path]) -> None:
    """Log the leftovers that were removed from repositories."""
    for path in paths:
        log.info("repository.swept", path=str(path))
