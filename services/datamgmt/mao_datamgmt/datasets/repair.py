"""Checks clones on which something failed, and rebuilds the broken ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from mao_datamgmt.context import Context
from mao_datamgmt.executor import GitExecutor
from mao_git import RepositoryError
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.git_urls import remote_url_fault
from mao_shared.logs import get_logger
from mao_shared.reconcile import Backoff, Guard, every

from . import broken
from . import broken as mending
from .clones import sync_clone

log = get_logger(__name__)

LONGEST_PAUSE = 60.0  # seconds between two tries


class CloneRepair:
    """`master_of`: the URL of a dataset's remote as this node's enrolments have it; None: not known.

    `unpushed_of`: a dataset's commits that are not pushed as the runs' documents say, with run and step.
    """

    def __init__(
        self,
        context: Context,
        works: GitExecutor,
        conditions: Conditions,
        master_of: Callable[[str], Awaitable[str | None]],
        unpushed_of: Callable[[str], Awaitable[dict[str, str]]],
        pause: float,
    ) -> None:
        self._unpushed_of = unpushed_of
        self._context = context
        self._works = works
        self._conditions = conditions
        self._guard = Guard("clones", conditions)
        self._master_of = master_of
        self._pause = pause
        self._told: set[str] = set()
        self._telling = asyncio.Lock()
        self._unaccounted: set[str] = set()  # datasets of which the runs were not asked what is lost
        works.attend = self._attend
        works.changed.append(self._changed)

    async def run(self) -> None:
        """Tells what an earlier process left, and makes anew what waits for its remote, until cancelled."""
        tries = 0

        async def step() -> float:
            nonlocal tries
            waiting = await self._works.read(self._look)
            await self.refresh()
            self._guard.keep(set(waiting))
            for dataset in waiting:  # one that cannot be mended now keeps no other from it
                try:
                    with self._guard.item(dataset):
                        await self._works.look_after(dataset)
                except Unavailable as error:
                    log.warning("clone.not_mended", dataset=dataset, error=error.detail)
            tries = tries + 1 if waiting else 0
            return min(self._pause * 2.0 ** min(tries, 10), LONGEST_PAUSE)

        await every(
            0.0, step, name="clones", conditions=self._conditions, failing=Backoff(1.0, LONGEST_PAUSE)
        )

    def _look(self) -> list[str]:
        found = broken.broken_clones(self._context)
        return sorted({each.dataset for each in found if each.state == "waiting"})

    async def _attend(self, names: list[str], error: BaseException) -> MaoError | None:
        """What to raise in place of `error` when it came of a broken clone; the datasets are held."""
        if not broken.may_be_broken(error):
            return None
        for name in names:
            master = await self._master_of(name)
            found: MaoError | None = None
            try:
                found = await self._works.run(rebuild_clone, self._context, name, master)
            except MaoError as worse:
                found = worse
            except (RepositoryError, OSError) as worse:  # say, the disk is full
                log.warning("clone.not_looked_at", dataset=name, error=str(worse))
            if found is not None:
                await self._account_for(name)
                await self.refresh()
                return found
        return None

    async def _changed(self, names: list[str]) -> None:
        """A change may have made a clone anew on its way; it is told at once."""
        for name in self._unaccounted & set(names):
            await self._account_for(name)
            await self.refresh()

    async def _account_for(self, dataset: str) -> None:
        """Of a commit that cannot be read only the run's document still says that it was, and whose."""
        unpushed = await self._unpushed_of(dataset)
        try:
            if await self._works.run(broken.record_losses, self._context, dataset, unpushed):
                self._unaccounted.discard(dataset)
        except (MaoError, RepositoryError, OSError) as error:
            log.warning("clone.not_accounted_for", dataset=dataset, error=str(error))

    async def refresh(self) -> None:
        """Reads and tells in one, so that what was read earlier is never told later."""
        async with self._telling:
            self._tell(await self._works.read(broken.broken_clones, self._context))

    def _tell(self, records: list[broken.BrokenClone]) -> None:
        """As conditions: of each dataset the latest."""
        latest = {each.dataset: each for each in records}
        for dataset, record in latest.items():
            self._conditions.report("clone", dataset, detail=record.detail, next_step=record.next)
        for dataset in self._told - latest.keys():
            self._conditions.clear("clone", dataset)
        self._told = set(latest)
        self._unaccounted |= {each.dataset for each in records if each.state == "waiting"}

    async def acknowledge(self, dataset: str) -> None:
        """See `mending.acknowledge`."""
        await self._works.change([dataset], partial(broken.acknowledge, self._context, dataset))
        await self.refresh()


def rebuild_clone(context: Context, name: str, url: str | None) -> Unavailable | None:
    """After trouble with a clone: sets it aside if it is broken, and makes it anew if one waits for that.

    What to raise in place of that trouble, so that it is tried again; None when the clone has no part in it.
    `url`: of the remote, where the broken clone does not tell. Raises what `mending.set_broken_aside` raises.
    """
    aside = mending.set_broken_aside(context, name)
    broken = mending.awaiting_rebuild(context, name)
    if aside is None and not broken:
        return None
    latest = broken[-1][1]
    remote = latest.url if latest.url is not None and remote_url_fault(latest.url) is None else url
    if remote is None:
        return mending.rebuild_waits(
            latest, MaoError("Its remote is not known until a run needs the dataset.")
        )
    try:
        sync_clone(context, name, remote)
    except Unavailable as error:
        return error
    return Unavailable(
        f"The clone of dataset {name} was broken ({latest.fault}) and was made anew.",
        code="clone-broken",
        next="It is tried again by itself.",
    )
