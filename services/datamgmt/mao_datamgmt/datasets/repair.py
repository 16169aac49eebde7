"""Checks clones after errors, and rebuilds broken ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_git import RepositoryError
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.git_urls import remote_url_fault
from mao_shared.logs import get_logger
from mao_shared.reconcile import Backoff, Guard, every

from . import broken
from .clones import sync_clone

log = get_logger(__name__)

MAX_RETRY_SECONDS = 60.0  # between two attempts


class CloneRepair:
    """Sets broken clones aside, rebuilds them, and reports the condition `clone`.

    `clone_remote_url` returns the URL of a dataset's remote from this node's enrolments, None if unknown.

    `unpushed_by_branch` returns a dataset's unpushed commits, as the runs' documents list them, with run and
    step. `pause` is the number of seconds before the first retry of a rebuild.
    """

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        conditions: Conditions,
        clone_remote_url: Callable[[str], Awaitable[str | None]],
        unpushed_by_branch: Callable[[str], Awaitable[dict[str, str]]],
        pause: float,
    ) -> None:
        self._context, self._executor = context, executor
        self._remote_url, self._unpushed_of = clone_remote_url, unpushed_by_branch
        self._conditions, self._guard = conditions, Guard("clones", conditions)
        self._pause = pause
        self._reported: set[str] = set()
        self._refreshing = asyncio.Lock()
        self._retry = asyncio.Event()
        self._waiting: set[str] = set()
        self._losses_unknown: set[str] = set()  # datasets whose lost commits are not recorded yet
        executor.on_error = self._rebuild_if_broken
        executor.on_change.append(self._changed)

    async def run(self) -> None:
        """Report broken clones, and retry rebuilding those whose remote was unavailable, until cancelled."""
        tries = 0

        async def step() -> float:
            nonlocal tries
            waiting = await self.refresh()
            self._guard.keep(waiting)
            for dataset in sorted(waiting):
                try:
                    with self._guard.item(dataset):
                        await self._executor.inspect(dataset)
                except Unavailable as error:
                    log.warning("clone.not_rebuilt", dataset=dataset, error=error.detail)
            tries = tries + 1 if waiting else 0
            return (
                min(self._pause * 2.0 ** min(tries, 10), MAX_RETRY_SECONDS) if waiting else MAX_RETRY_SECONDS
            )

        await every(
            0.0,
            step,
            name="clones",
            wake=self._retry,
            conditions=self._conditions,
            failing=Backoff(1.0, MAX_RETRY_SECONDS),
        )

    async def _rebuild_if_broken(self, names: list[str], error: BaseException) -> MaoError | None:
        """Return the error to raise instead of `error` if a broken clone caused it.

        The datasets are locked.
        """
        if not broken.may_be_broken(error):
            return None
        for name in names:
            remote = await self._remote_url(name)
            outcome: MaoError | None = None
            try:
                outcome = await self._executor.run(rebuild_clone, self._context, name, remote)
            except MaoError as failure:
                outcome = failure
            except (RepositoryError, OSError) as failure:  # for instance, the disk is full
                log.warning("clone.not_checked", dataset=name, error=str(failure))
            if outcome is not None:
                await self._record_losses(name)
                await self.refresh()
                return outcome
        return None

    async def _changed(self, names: list[str]) -> None:
        """Record the losses of datasets that a write may have rebuilt."""
        for name in self._losses_unknown & set(names):
            await self._record_losses(name)
            await self.refresh()

    async def _record_losses(self, dataset: str) -> None:
        """Record the commits lost with a broken clone, which only the runs' documents still list."""
        unpushed = await self._unpushed_of(dataset)
        try:
            if await self._executor.run(broken.record_losses, self._context, dataset, unpushed):
                self._losses_unknown.discard(dataset)
        except (MaoError, RepositoryError, OSError) as error:
            log.warning("clone.losses_not_recorded", dataset=dataset, error=str(error))

    async def refresh(self) -> set[str]:
        """Report the latest broken clone of each dataset as a condition; return those that wait for a remote.

        `run` tries a dataset that has begun to wait again after `pause`.
        """
        async with self._refreshing:
            records = await self._executor.read(broken.broken_clones, self._context)
            latest = {record.dataset: record for record in records}
            for dataset, record in latest.items():
                self._conditions.report("clone", dataset, detail=record.detail, next_step=record.next)
            for dataset in self._reported - latest.keys():
                self._conditions.clear("clone", dataset)
            self._reported = set(latest)
            waiting = {record.dataset for record in records if record.state == "waiting"}
            if waiting - self._waiting:
                asyncio.get_running_loop().call_later(self._pause, self._retry.set)
            self._waiting = waiting
            self._losses_unknown |= waiting
            return waiting

    async def acknowledge(self, dataset: str) -> None:
        """Acknowledge a broken clone; see `broken.acknowledge`."""
        await self._executor.write([dataset], partial(broken.acknowledge, self._context, dataset))
        await self.refresh()


def rebuild_clone(context: Context, name: str, url: str | None) -> Unavailable | None:
    """Set the clone aside if it is broken, and rebuild it.

    Returns the error to raise instead of the failure, so that the call is retried; None if the clone is
    intact. `url` is the remote if it cannot be read from the broken clone. Raises the errors of
    `broken.set_broken_aside` raises.
    """
    aside = broken.set_broken_aside(context, name)
    waiting = broken.awaiting_rebuild(context, name)
    if aside is None and not waiting:
        return None
    latest = waiting[-1][1]
    remote = latest.url if latest.url is not None and remote_url_fault(latest.url) is None else url
    if remote is None:
        return broken.rebuild_waits(latest, MaoError("Its remote is unknown until a run needs the dataset."))
    try:
        sync_clone(context, name, remote)
    except Unavailable as error:
        return error
    return Unavailable(
        f"The clone of dataset {name} was broken ({latest.fault}) and has been rebuilt.",
        code="clone-broken",
        next="It is retried automatically.",
    )
