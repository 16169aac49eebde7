"""Tries again to push what a remote did not take, with growing pauses, across restarts."""

from __future__ import annotations

import asyncio

from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH
from mao_shared.reconcile import WorkQueue

from . import repository
from .agreement import Agreement
from .bare import dataset_names
from .context import Context
from .deliver import Delivery, blocked, deliver
from .late import Late
from .metrics import DataMetrics
from .repository import MergeConflict
from .works import Works

log = get_logger(__name__)

MAX_PAUSE = 300.0  # seconds
AT_ONCE = 4


class Pusher:
    """`failures`: dataset → why its last push did not get through."""

    def __init__(
        self,
        context: Context,
        works: Works,
        agreement: Agreement,
        late: Late,
        pause: float,
        metrics: DataMetrics,
    ) -> None:
        self.failures: dict[str, str] = {}
        self._pushes = metrics.late_pushes
        metrics.unpushed.set_function(lambda: len(self.failures))
        self._context = context
        self._works = works
        self._agreement = agreement
        self._late = late
        self._pause = pause
        self._tries: dict[str, int] = {}
        self._queue = WorkQueue()

    def want(self, dataset: str, failure: MaoError) -> None:
        """Pushes the dataset later, since it did not get through now."""
        self.failures[dataset] = failure.detail
        tries = self._tries[dataset] = self._tries.get(dataset, 0) + 1
        self._queue.add_later(dataset, min(self._pause * 2 ** min(tries - 1, 20), MAX_PAUSE))

    def soon(self, dataset: str) -> None:
        """Pushes the dataset beside what else is going on; it has a new commit."""
        self._queue.add(dataset)

    def settled(self, dataset: str) -> None:
        """The dataset's remote has everything: what was late is written down."""
        if self.failures.pop(dataset, None) is not None:
            self._queue.add(dataset)
        self._tries.pop(dataset, None)

    async def run(self) -> None:
        """Works until cancelled; begins with what an earlier process left unpushed or unsaid."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_up())
                for _ in range(AT_ONCE):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def _take_up(self) -> None:
        for name in await self._works.read(left_behind, self._context):
            self._queue.add(name)
        while True:
            try:
                unsaid = await self._late.datasets()
                break
            except Unavailable:
                await asyncio.sleep(self._pause)
        for name in unsaid & set(await self._works.read(dataset_names, self._context.data)):
            self._queue.add(name)

    async def _work(self) -> None:
        while True:
            dataset = await self._queue.take()
            try:
                await self._push(dataset)
            finally:
                self._queue.done(dataset)

    async def _push(self, dataset: str) -> None:
        try:
            promote = await self._agreement.obstacle(dataset) is None
            delivery = await self._works.change([dataset], push_again, self._context, dataset, promote)
            failure = delivery.failure
            if failure is None:
                await self._late.write_down(dataset)
        except MaoError as error:
            failure = error
        except Exception as error:
            log.error("push.broken", dataset=dataset, exc_info=error)
            failure = MaoError(f"The push of {dataset} failed: {error}")
        self._pushes.labels("failed" if failure else "done").inc()
        if failure is None:
            self.failures.pop(dataset, None)
            self._tries.pop(dataset, None)
            log.info("push.done", dataset=dataset)
        else:
            self.want(dataset, failure)
            log.warning("push.failed", dataset=dataset, code=failure.code, error=failure.detail)


def left_behind(context: Context) -> list[str]:
    """Datasets whose branches are ahead of what their remotes were last seen to have. Blocking."""
    return [name for name in dataset_names(context.data) if _is_behind(context, name)]


def _is_behind(context: Context, name: str) -> bool:
    try:
        clone = repository.open_clone(context.data.clone(name))
        return any(repository.unpushed(clone, branch) for branch in (context.node, GROUND_TRUTH))
    except (MaoError, *repository.TROUBLE) as error:  # one broken clone must not keep the others from working
        log.error("push.clone_unusable", dataset=name, error=str(error))
        return False


def push_again(context: Context, dataset: str, promote: bool) -> Delivery:
    """One more delivery, with what the remote has now. Raises MaoError. Blocking."""
    clone = repository.open_clone(context.data.clone(dataset))
    try:
        return deliver(context, clone, promote=promote)
    except MergeConflict as conflict:
        raise blocked(clone, conflict) from conflict
