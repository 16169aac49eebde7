"""The outbox of each dataset, and the controller that retries failed pushes with exponential backoff.

A commit is in the outbox until the remote is known to have it. This state is read from git, so a restart
loses nothing; the reason of a failure is known again after the next attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from mao_datamgmt.context import Context
from mao_datamgmt.disk import caused_by_full_disk
from mao_datamgmt.git_executor import GitExecutor
from mao_datamgmt.metrics import DataMetrics
from mao_git import Clone, MergeConflict, ObjectBroken, RepositoryError, StorageError
from mao_git.errors import disk_full, disk_trouble
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import Outbox, OutboxState
from mao_shared.reconcile import Backoff, Controller, Guard

from . import quarantine
from .clones import dataset_names
from .delivery import PushOutcome, branch_conflict, push_branches
from .late_commits import LatePushes

log = get_logger(__name__)

CONCURRENT_PUSHES = 4
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
_NEED_A_PERSON = frozenset({"refused", "auth", "diverged"})
SLOW_RETRY_FACTOR = 6  # how much longer the pauses for these are
MAX_RETRY_SECONDS = 300.0  # between two attempts for the others
# Failures that are not the remote's fault:
LOCAL_FAULTS = frozenset({"disk-full", "disk-trouble", "clone-broken", "branch-busy", "given-up", "internal"})


@dataclass(frozen=True, slots=True)
class PushFailure:
    """The last failed push. `tries` counts the failed attempts since the last success, from `since` on."""

    failure: MaoError
    tries: int
    next_try_at: datetime
    since: datetime

    @property
    def state(self) -> OutboxState:
        return _STATES.get(self.failure.code, "waiting")


def outbox_status(clone: Clone, branch: str, failed: PushFailure | None) -> Outbox:
    """Return the outbox of a dataset. Blocking; takes time proportional to the number of waiting commits."""
    waiting, since = clone.unpushed(branch)
    if failed is None:
        return Outbox(state="waiting" if waiting else "in-sync", waiting=waiting, since=since)
    return Outbox(
        state=failed.state,
        waiting=waiting,
        since=since,
        code=failed.failure.code,
        detail=failed.failure.detail,
        next=failed.failure.next,
        tries=failed.tries,
        next_try_at=failed.next_try_at,
    )


def retry_pause(first: float, tries: int, code: str, chance: float | None = None) -> float:
    """Return the seconds before retrying a push that failed with `code`; see `Backoff.pause`."""
    factor = SLOW_RETRY_FACTOR if _STATES.get(code, "waiting") in _NEED_A_PERSON else 1
    return factor * Backoff(first, MAX_RETRY_SECONDS).pause(tries, chance)


class Pusher:
    """Retries pushes that failed, with exponential backoff.

    `failures` maps a dataset to its last failed push. `pause` is the number of seconds before the first
    retry.

    `promotes` returns whether this node's snapshot of a dataset becomes ground truth at once.
    """

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        promotes: Callable[[str], Awaitable[bool]],
        late: LatePushes,
        pause: float,
        metrics: DataMetrics,
        conditions: Conditions,
    ) -> None:
        self._context, self._executor = context, executor
        self._promotes, self._late, self._pause = promotes, late, pause
        self._conditions, self._guard = conditions, Guard("pusher", conditions)
        self._metrics = metrics
        self.failures: dict[str, PushFailure] = {}
        metrics.unpushed.set_function(lambda: len(self.failures))
        self._failed_fetches: dict[str, int] = {}  # dataset → consecutive failed fetches
        self._pushes = Controller(
            "pusher",
            self._reconcile,
            workers=CONCURRENT_PUSHES,
            list_keys=self._list_unfinished,
            resync=None,
            conditions=conditions,
        )
        self._measurements = Controller(
            "outbox-metrics", self._measure, workers=1, resync=None, conditions=conditions
        )

    def push_later(self, dataset: str, failure: MaoError) -> None:
        """Record a failed push, and schedule a retry after a pause."""
        previous = self.failures.get(dataset)
        tries = 1 if previous is None else previous.tries + 1
        pause = retry_pause(self._pause, tries, failure.code)
        now = self._context.clock.now()
        since = now if previous is None else previous.since
        self.failures[dataset] = PushFailure(failure, tries, now + timedelta(seconds=pause), since)
        self._report(dataset, failure)
        self._pushes.add_later(dataset, pause)
        self._measurements.add(dataset)

    def schedule_push(self, dataset: str) -> None:
        """Schedule a push of the dataset as soon as a worker is free."""
        self._pushes.add(dataset)

    def note_pushed(self, dataset: str) -> None:
        """Record that the remote has all commits, and schedule the update of runs that ended before that."""
        if self._forget(dataset):
            self._pushes.add(dataset)
        self._measurements.add(dataset)

    def _forget(self, dataset: str) -> bool:
        """Clear the failure of a dataset that is fully pushed; return True if there was one."""
        self._conditions.clear("remote", dataset)
        self._conditions.clear("unpushed", dataset)
        self._failed_fetches.pop(dataset, None)
        return self.failures.pop(dataset, None) is not None

    def note_fetch(self, dataset: str, failure: MaoError | None) -> None:
        """Record the result of a fetch. A remote that can be read may still refuse pushes.

        A remote that could not be fetched is retried until it answers, even if there is nothing to push.
        """
        if failure is not None:
            self._report(dataset, failure)
            if dataset not in self.failures:  # otherwise the next push fetches as well
                tries = self._failed_fetches[dataset] = self._failed_fetches.get(dataset, 0) + 1
                self._pushes.add_later(dataset, retry_pause(self._pause, tries, failure.code))
        else:
            self._failed_fetches.pop(dataset, None)
            if dataset not in self.failures:
                self._conditions.clear("remote", dataset)

    def _report(self, dataset: str, failure: MaoError) -> None:
        """Report a failure as a condition of the remote, unless it is caused by this node's disk or clone."""
        if failure.code in LOCAL_FAULTS:
            self._conditions.clear("remote", dataset)
        else:
            next_step = failure.next or f"See the unpushed commits: maoctl dataset get {dataset}"
            self._conditions.report("remote", dataset, detail=failure.detail, next_step=next_step)

    async def run(self) -> None:
        """Push until cancelled, beginning with the commits that an earlier process left unpushed."""
        await asyncio.gather(self._pushes.run(), self._measurements.run())

    async def _list_unfinished(self) -> Iterable[str]:
        for name in await self._executor.read(unpushed_datasets, self._context):
            self._pushes.add(name)  # even if the store is unavailable
        late = await self._late.datasets()
        return late & set(await self._executor.read(dataset_names, self._context.data))

    async def _reconcile(self, dataset: str) -> None:
        if dataset in self._failed_fetches and dataset not in self.failures:
            # Its remote did not answer: push only after a successful fetch, and if there is a branch to push.
            fetch = partial(fetch_remote, self._context, dataset)
            try:
                has_branch = await self._executor.write([dataset], fetch)
            except MaoError as error:
                self.note_fetch(dataset, None if error.code == "dataset-not-here" else error)
                return
            self.note_fetch(dataset, None)
            if not has_branch:
                return
        await self._push(dataset)

    async def push_now(self, dataset: str) -> None:
        """Push at once. Raises NotFound if the dataset has no clone on this node."""
        await self._executor.read(Clone.open, self._context.data.clone(dataset))
        await self._push(dataset, fetch=True)

    async def _push(self, dataset: str, *, fetch: bool = False) -> None:
        """Push a dataset; with `fetch`, fetch first even if no commit waits."""
        try:
            promote = await self._promotes(dataset)
            push = partial(push_again, self._context, dataset, promote, fetch=fetch)
            delivery = await self._executor.write([dataset], push)
            failure = delivery.failure
            if delivery.observed:  # ground truth alone may be refused for a long time
                await self._late.record_pushed(dataset)
        except MaoError as error:
            failure = None if error.code == "dataset-not-here" else error  # it was set aside
        except (
            StorageError,
            ObjectBroken,
            OSError,
        ) as error:  # of the local disk; those of the remote are MaoErrors
            if await self._executor.read(caused_by_full_disk, self._context, error):
                failure = disk_full("no space was left while pushing")  # reported as the condition `disk`
            else:
                failure = disk_trouble(error.strerror or str(error))
                self._guard.failed(dataset, failure)
        except Exception as error:  # noqa: BLE001 (it concerns one dataset only)
            self._guard.failed(dataset, error)
            failure = MaoError(f"The push of {dataset} failed: {error}")
        self._metrics.late_pushes.labels("failed" if failure else "done").inc()
        if failure is None:
            self._guard.succeeded(dataset)
            self._forget(dataset)
            self._measurements.add(dataset)
            log.info("push.done", dataset=dataset)
        else:
            self.push_later(dataset, failure)
            log.warning("push.failed", dataset=dataset, code=failure.code, error=failure.detail)

    async def _measure(self, dataset: str) -> None:
        """Update the metrics of a dataset's outbox."""
        try:
            outbox = await self._executor.read(read_outbox, self._context, dataset)
        except NotFound:
            self._metrics.forget_outbox(dataset)  # or its age would grow for ever
            return
        except (MaoError, RepositoryError):
            return  # the push reports it
        since, clock = outbox.since, self._context.clock
        self._metrics.unpushed_commits.labels(dataset).set(outbox.waiting)
        self._metrics.unpushed_age.labels(dataset).set_function(  # it grows between attempts too
            lambda: 0.0 if since is None else max(0.0, (clock.now() - since).total_seconds())
        )


def read_outbox(context: Context, dataset: str) -> Outbox:
    """Return the outbox of a dataset, without the last failure. Raises NotFound. Blocking."""
    return outbox_status(Clone.open(context.data.clone(dataset)), context.node, None)


def unpushed_datasets(context: Context) -> list[str]:
    """Return the datasets with branches ahead of the last fetched state of their remotes. Blocking."""
    outbox = []
    for name in dataset_names(context.data):
        try:
            clone = Clone.open(context.data.clone(name))
            unpushed = any(clone.unpushed(branch).commits for branch in (context.node, GROUND_TRUTH))
            if unpushed or quarantine.has_unpushed(context, clone):
                outbox.append(name)
        except (MaoError, RepositoryError) as error:  # one broken clone must not block the others
            log.error("push.clone_unusable", dataset=name, error=str(error))
            outbox.append(name)  # the push reports it
    return outbox


def fetch_remote(context: Context, dataset: str) -> bool:
    """Fetch a dataset; return True if this node has a branch in it. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    clone.fetch(context.access)
    return clone.tip(context.node) is not None


def push_again(context: Context, dataset: str, promote: bool, *, fetch: bool = False) -> PushOutcome:
    """Push a dataset; with `fetch`, fetch first. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    if fetch:
        clone.fetch(context.access)
    try:
        return push_branches(context, clone, promote=promote)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict
