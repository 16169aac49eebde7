"""What waits to be pushed, and the controller that pushes it again with growing pauses.

What waits to be pushed, and why: commits that only this node has, told from git itself.

A commit is in the outbox while the remote was not seen to have it. Nothing else is kept, so that a restart
forgets no commit; only the reason is learned again, by the next try.

Tries again to push what a remote did not take, with growing pauses, across restarts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from pydantic import BaseModel, Field

from mao_datamgmt.context import Context
from mao_datamgmt.disk import met_full_disk
from mao_datamgmt.executor import GitExecutor
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_datamgmt.telemetry import DataMetrics
from mao_git import Clone, MergeConflict, ObjectBroken, RepositoryError, StorageError
from mao_git.errors import disk_full, disk_trouble
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH, Timestamp
from mao_shared.reconcile import Backoff, Guard, until_done
from mao_shared.reconcile.controller import WorkQueue

from .clones import dataset_names
from .delivery import PushOutcome, branch_conflict, push_branches
from .late_pushes import LatePushes

OutboxState = Literal["in-sync", "waiting", "refused", "auth", "gone", "diverged"]

_STATES: dict[str, OutboxState] = {
    "push-refused": "refused",
    "branch-name-taken": "refused",
    "remote-unsupported": "refused",
    "remote-not-allowed": "refused",
    "remote-auth-failed": "auth",
    "ssh-key-unusable": "auth",
    "host-key-revoked": "auth",
    "remote-certificate-refused": "auth",
    "host-key-unknown": "auth",
    "host-key-changed": "auth",
    "dataset-unreachable": "gone",
    "branch-conflict": "diverged",
    "branch-rewritten": "diverged",
}

_HELPLESS = frozenset({"refused", "auth", "diverged"})  # they need a person: no use in hammering

SLOWER = 6  # times longer between the tries then

MAX_PAUSE = 300.0  # seconds, of those that pass by themselves


@dataclass(frozen=True, slots=True)
class PushFailure:
    """Why the last push did not get through. `tries`: since the last that did; `since`: the first of them."""

    failure: MaoError
    tries: int
    next_try_at: datetime
    since: datetime

    @property
    def state(self) -> OutboxState:
        return _STATES.get(self.failure.code, "waiting")


class Outbox(BaseModel):
    """`waiting`: commits of this node's branch that the remote lacks; `since`: when the oldest was made."""

    state: OutboxState = Field(examples=["waiting"])
    waiting: int = 0
    since: Timestamp | None = None
    code: str | None = None
    detail: str | None = None
    next: str | None = None
    tries: int = 0
    next_try_at: Timestamp | None = None


def outbox_of(clone: Clone, branch: str, trouble: PushFailure | None) -> Outbox:
    """The outbox of a dataset. Blocking; proportional to what waits."""
    waiting, since = clone.unpushed(branch)
    if trouble is None:
        return Outbox(state="waiting" if waiting else "in-sync", waiting=waiting, since=since)
    failure = trouble.failure
    return Outbox(
        state=trouble.state,
        waiting=waiting,
        since=since,
        code=failure.code,
        detail=failure.detail,
        next=failure.next,
        tries=trouble.tries,
        next_try_at=trouble.next_try_at,
    )


def retry_pause(first: float, tries: int, code: str, chance: float | None = None) -> float:
    """Seconds before the next try of a push that failed with `code`; see `Backoff.pause`."""
    slower = SLOWER if _STATES.get(code, "waiting") in _HELPLESS else 1
    return slower * Backoff(first, MAX_PAUSE).pause(tries, chance)


log = get_logger(__name__)

AT_ONCE = 4

LOCAL_FAULTS = frozenset(
    {"disk-full", "disk-trouble", "clone-broken", "branch-busy", "given-up", "internal"}
)  # no fault of the remote


class Pusher:
    """`troubles`: dataset → why its last push did not get through."""

    def __init__(
        self,
        context: Context,
        works: GitExecutor,
        agreement: DatasetSharing,
        late: LatePushes,
        pause: float,
        metrics: DataMetrics,
        conditions: Conditions,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("pusher", conditions)
        self.troubles: dict[str, PushFailure] = {}
        self._away: dict[str, int] = {}  # dataset → looks in a row at its remote that got no answer
        self._pushes = metrics.late_pushes
        metrics.unpushed.set_function(lambda: len(self.troubles))
        self._context = context
        self._works = works
        self._agreement = agreement
        self._late = late
        self._pause = pause
        self._unpushed = metrics.unpushed_commits
        self._age = metrics.unpushed_age
        self._queue = WorkQueue()
        self._unmeasured = WorkQueue()

    def want(self, dataset: str, failure: MaoError) -> None:
        """Pushes the dataset later, since it did not get through now."""
        before = self.troubles.get(dataset)
        tries = 1 if before is None else before.tries + 1
        pause = retry_pause(self._pause, tries, failure.code)
        now = self._context.clock.now()
        since = now if before is None else before.since
        self.troubles[dataset] = PushFailure(failure, tries, now + timedelta(seconds=pause), since)
        self._report(dataset, failure)
        self._queue.add_later(dataset, pause)
        self._unmeasured.add(dataset)

    def soon(self, dataset: str) -> None:
        """Pushes the dataset beside what else is going on; it has a new commit."""
        self._queue.add(dataset)

    def settled(self, dataset: str) -> None:
        """The dataset's remote has everything: what was late is written down."""
        if self._forget(dataset):
            self._queue.add(dataset)

    def _forget(self, dataset: str) -> bool:
        """The remote has taken all; whether it was in trouble before."""
        self._conditions.clear("remote", dataset)
        self._conditions.clear("unpushed", dataset)
        self._away.pop(dataset, None)
        return self.troubles.pop(dataset, None) is not None

    def heard(self, dataset: str, failure: MaoError | None) -> None:
        """What a look at the remote said; that it can be read does not mean that it takes pushes.

        One that is away is looked at again, until it is back: there may be nothing to push for long.
        """
        if failure is not None:
            self._report(dataset, failure)
            if dataset not in self.troubles:  # else the next push looks as well
                tries = self._away[dataset] = self._away.get(dataset, 0) + 1
                self._queue.add_later(dataset, retry_pause(self._pause, tries, failure.code))
        else:
            self._away.pop(dataset, None)
            if dataset not in self.troubles:
                self._conditions.clear("remote", dataset)

    def _report(self, dataset: str, failure: MaoError) -> None:
        """As the node's condition; what is wrong with our own disk or clone is no condition of the remote."""
        if failure.code in LOCAL_FAULTS:
            self._conditions.clear("remote", dataset)
        else:
            next_step = failure.next or f"See what waits: maoctl dataset get {dataset}"
            self._conditions.report("remote", dataset, detail=failure.detail, next_step=next_step)

    async def run(self) -> None:
        """Works until cancelled; begins with what an earlier process left unpushed or unsaid."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    until_done(
                        self._take_up,
                        name="pusher",
                        conditions=self._conditions,
                        away=Backoff(self._pause, 5.0),
                    )
                )
                for _ in range(AT_ONCE):
                    group.create_task(self._work())
                group.create_task(self._measure_for_ever())
        finally:
            self._queue.close()
            self._unmeasured.close()

    async def _take_up(self) -> None:
        for name in await self._works.read(unpushed_datasets, self._context):
            self._queue.add(name)
        unsaid = await self._late.datasets()
        for name in unsaid & set(await self._works.read(dataset_names, self._context.data)):
            self._queue.add(name)

    async def _work(self) -> None:
        while True:
            dataset = await self._queue.take()
            try:
                if dataset not in self._away or dataset in self.troubles or await self._look(dataset):
                    await self._push(dataset)
            except Exception as error:  # noqa: BLE001 (what could not even be told of)
                self._queue.add_later(dataset, self._guard.failed(dataset, error))
            finally:
                self._queue.done(dataset)

    async def _look(self, dataset: str) -> bool:
        """Looks at a remote that was away; whether it is back and there is something here to push to it."""
        try:
            ours = await self._works.change([dataset], partial(fetch_remote, self._context, dataset))
        except MaoError as error:
            self.heard(dataset, None if error.code == "dataset-not-here" else error)
            return False
        self.heard(dataset, None)
        return ours

    async def push(self, dataset: str) -> None:
        """One try now. Raises NotFound when the dataset has no clone here."""
        await self._works.read(Clone.open, self._context.data.clone(dataset))
        await self._push(dataset, look=True)

    async def _push(self, dataset: str, *, look: bool = False) -> None:
        """`look`: at the remote first, though nothing may be known to wait."""
        try:
            promote = await self._agreement.obstacle(dataset) is None
            work = partial(push_again, self._context, dataset, promote, look=look)
            delivery = await self._works.change([dataset], work)
            failure = delivery.failure
            if delivery.observed:  # ground truth alone may be refused, and for long
                await self._late.write_down(dataset)
        except MaoError as error:
            failure = None if error.code == "dataset-not-here" else error  # it was set aside
        except (
            StorageError,
            ObjectBroken,
            OSError,
        ) as error:  # the node's own disk; what is wrong at the remote comes as a MaoError
            if await self._works.read(met_full_disk, self._context, error):
                failure = disk_full("no room was left while pushing")  # which is told as `disk`
            else:
                failure = disk_trouble(error.strerror or str(error))
                self._guard.failed(dataset, failure)
        except Exception as error:  # noqa: BLE001 (of one dataset)
            self._guard.failed(dataset, error)
            failure = MaoError(f"The push of {dataset} failed: {error}")
        self._pushes.labels("failed" if failure else "done").inc()
        if failure is None:
            self._guard.worked(dataset)
            self._forget(dataset)
            self._unmeasured.add(dataset)
            log.info("push.done", dataset=dataset)
        else:
            self.want(dataset, failure)
            log.warning("push.failed", dataset=dataset, code=failure.code, error=failure.detail)

    async def _measure_for_ever(self) -> None:
        while True:
            dataset = await self._unmeasured.take()
            try:
                await self._measure(dataset)
            except Exception as error:  # noqa: BLE001 (of one dataset)
                log.warning("push.not_measured", dataset=dataset, error=str(error))
            finally:
                self._unmeasured.done(dataset)

    async def _measure(self, dataset: str) -> None:
        """Shows in the metrics what waits now."""
        try:
            found = await self._works.read(read_outbox, self._context, dataset, None)
        except (MaoError, RepositoryError):
            return  # the push has told
        since, clock = found.since, self._context.clock
        self._unpushed.labels(dataset).set(found.waiting)
        self._age.labels(dataset).set_function(  # it grows between the tries too
            lambda: 0.0 if since is None else max(0.0, (clock.now() - since).total_seconds())
        )


def read_outbox(context: Context, dataset: str, trouble: PushFailure | None) -> Outbox:
    """See `outbox_of`. Raises NotFound. Blocking."""
    return outbox_of(Clone.open(context.data.clone(dataset)), context.node, trouble)


def unpushed_datasets(context: Context) -> list[str]:
    """Datasets whose branches are ahead of what their remotes were last seen to have. Blocking."""
    return [name for name in dataset_names(context.data) if _is_behind(context, name)]


def _is_behind(context: Context, name: str) -> bool:
    try:
        clone = Clone.open(context.data.clone(name))
        return any(clone.unpushed(branch).commits for branch in (context.node, GROUND_TRUTH))
    except (MaoError, RepositoryError) as error:  # one broken clone must not keep the others from working
        log.error("push.clone_unusable", dataset=name, error=str(error))
        return True  # the push looks after it


def fetch_remote(context: Context, dataset: str) -> bool:
    """Brings in what the remote has; whether this node writes to the dataset. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    clone.fetch(context.access)
    return clone.tip(context.node) is not None


def push_again(context: Context, dataset: str, promote: bool, *, look: bool = False) -> PushOutcome:
    """One more delivery. `look`: with what the remote has now. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    if look:
        clone.fetch(context.access)
    try:
        return push_branches(context, clone, promote=promote)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict
