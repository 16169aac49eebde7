"""What waits to be pushed, and the controller that pushes it again with growing pauses.

A commit is in the outbox while the remote was not seen to have it. Only git tells that, so a restart forgets
none; the reason is learned again by the next try.
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
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import Outbox, OutboxState
from mao_shared.reconcile import Backoff, Controller, Guard

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
SLOW_RETRY_FACTOR = 6  # times longer between the tries of those
MAX_PAUSE = 300.0  # seconds between the tries of the others
# No fault of the remote:
LOCAL_FAULTS = frozenset({"disk-full", "disk-trouble", "clone-broken", "branch-busy", "given-up", "internal"})


@dataclass(frozen=True, slots=True)
class PushFailure:
    """The failure of the last push. `tries`: pushes since the last success; `since`: time of the first."""

    failure: MaoError
    tries: int
    next_try_at: datetime
    since: datetime

    @property
    def state(self) -> OutboxState:
        return _STATES.get(self.failure.code, "waiting")


def make_outbox(clone: Clone, branch: str, failed: PushFailure | None) -> Outbox:
    """Return the outbox of a dataset. Blocking; the time grows with the number of waiting commits."""
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
    slower = SLOW_RETRY_FACTOR if _STATES.get(code, "waiting") in _NEED_A_PERSON else 1
    return slower * Backoff(first, MAX_PAUSE).pause(tries, chance)


class Pusher:
    """Pushes datasets whose commits did not reach their remote, with growing pauses.

    `failures`: dataset → why its last push failed. `pause`: seconds before the second try.

    `promotes`: whether this node's snapshot of a dataset becomes ground truth at once.
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
        self._unanswered: dict[str, int] = {}  # dataset → fetches in a row that got no answer
        self._pushes = Controller(
            "pusher",
            self._reconcile,
            workers=CONCURRENT_PUSHES,
            list_keys=self._list_unfinished,
            resync=None,
            conditions=conditions,
        )
        self._measures = Controller(
            "outbox-metrics", self._measure, workers=1, resync=None, conditions=conditions
        )

    def push_later(self, dataset: str, failure: MaoError) -> None:
        """Schedule another push of the dataset after a pause, since one has failed."""
        before = self.failures.get(dataset)
        tries = 1 if before is None else before.tries + 1
        pause = retry_pause(self._pause, tries, failure.code)
        now = self._context.clock.now()
        since = now if before is None else before.since
        self.failures[dataset] = PushFailure(failure, tries, now + timedelta(seconds=pause), since)
        self._report(dataset, failure)
        self._pushes.add_later(dataset, pause)
        self._measures.add(dataset)

    def schedule_push(self, dataset: str) -> None:
        """Push the dataset as soon as a worker is free: it has a new commit."""
        self._pushes.add(dataset)

    def note_pushed(self, dataset: str) -> None:
        """Record that the remote has everything; runs whose commits were late are updated."""
        if self._forget(dataset):
            self._pushes.add(dataset)

    def _forget(self, dataset: str) -> bool:
        """Clear the failures of a dataset that is fully pushed; return whether there was one."""
        self._conditions.clear("remote", dataset)
        self._conditions.clear("unpushed", dataset)
        self._unanswered.pop(dataset, None)
        return self.failures.pop(dataset, None) is not None

    def note_fetch(self, dataset: str, failure: MaoError | None) -> None:
        """Record the result of a fetch; a remote that can be read may still refuse pushes.

        One that does not answer is asked again until it does: there may be nothing to push for long.
        """
        if failure is not None:
            self._report(dataset, failure)
            if dataset not in self.failures:  # else the next push fetches as well
                tries = self._unanswered[dataset] = self._unanswered.get(dataset, 0) + 1
                self._pushes.add_later(dataset, retry_pause(self._pause, tries, failure.code))
        else:
            self._unanswered.pop(dataset, None)
            if dataset not in self.failures:
                self._conditions.clear("remote", dataset)

    def _report(self, dataset: str, failure: MaoError) -> None:
        """Report a failure as a condition of the remote, unless our own disk or clone is at fault."""
        if failure.code in LOCAL_FAULTS:
            self._conditions.clear("remote", dataset)
        else:
            next_step = failure.next or f"See what waits: maoctl dataset get {dataset}"
            self._conditions.report("remote", dataset, detail=failure.detail, next_step=next_step)

    async def run(self) -> None:
        """Push until cancelled, beginning with what an earlier process left unpushed."""
        await asyncio.gather(self._pushes.run(), self._measures.run())

    async def _list_unfinished(self) -> Iterable[str]:
        for name in await self._executor.read(unpushed_datasets, self._context):
            self._pushes.add(name)  # though the store may be away
        late = await self._late.datasets()
        return late & set(await self._executor.read(dataset_names, self._context.data))

    async def _reconcile(self, dataset: str) -> None:
        if dataset in self._unanswered and dataset not in self.failures:
            # Its remote did not answer: push only once it is back, and if there is something to push.
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
        """Push once, without waiting. Raises NotFound when the dataset has no clone here."""
        await self._executor.read(Clone.open, self._context.data.clone(dataset))
        await self._push(dataset, fetch=True)

    async def _push(self, dataset: str, *, fetch: bool = False) -> None:
        """Push a dataset; with `fetch`, fetch first even if nothing is known to wait."""
        try:
            promote = await self._promotes(dataset)
            work = partial(push_again, self._context, dataset, promote, fetch=fetch)
            delivery = await self._executor.write([dataset], work)
            failure = delivery.failure
            if delivery.observed:  # ground truth alone may be refused, and for long
                await self._late.record_pushed(dataset)
        except MaoError as error:
            failure = None if error.code == "dataset-not-here" else error  # it was set aside
        except (StorageError, ObjectBroken, OSError) as error:  # our disk: the remote's faults are MaoErrors
            if await self._executor.read(caused_by_full_disk, self._context, error):
                failure = disk_full("no room was left while pushing")  # reported as the condition `disk`
            else:
                failure = disk_trouble(error.strerror or str(error))
                self._guard.failed(dataset, failure)
        except Exception as error:  # noqa: BLE001 (of one dataset)
            self._guard.failed(dataset, error)
            failure = MaoError(f"The push of {dataset} failed: {error}")
        self._metrics.late_pushes.labels("failed" if failure else "done").inc()
        if failure is None:
            self._guard.succeeded(dataset)
            self._forget(dataset)
            self._measures.add(dataset)
            log.info("push.done", dataset=dataset)
        else:
            self.push_later(dataset, failure)
            log.warning("push.failed", dataset=dataset, code=failure.code, error=failure.detail)

    async def _measure(self, dataset: str) -> None:
        """Update the metrics of a dataset's outbox."""
        try:
            found = await self._executor.read(read_outbox, self._context, dataset)
        except (MaoError, RepositoryError):
            return  # the push reports it
        since, clock = found.since, self._context.clock
        self._metrics.unpushed_commits.labels(dataset).set(found.waiting)
        self._metrics.unpushed_age.labels(dataset).set_function(  # it grows between the tries too
            lambda: 0.0 if since is None else max(0.0, (clock.now() - since).total_seconds())
        )


def read_outbox(context: Context, dataset: str) -> Outbox:
    """Return the outbox of a dataset without the reason of a failure. Raises NotFound. Blocking."""
    return make_outbox(Clone.open(context.data.clone(dataset)), context.node, None)


def unpushed_datasets(context: Context) -> list[str]:
    """Return the datasets whose branches are ahead of their remotes as last fetched. Blocking."""
    found = []
    for name in dataset_names(context.data):
        try:
            clone = Clone.open(context.data.clone(name))
            if any(clone.unpushed(branch).commits for branch in (context.node, GROUND_TRUTH)):
                found.append(name)
        except (MaoError, RepositoryError) as error:  # one broken clone must not keep the others from working
            log.error("push.clone_unusable", dataset=name, error=str(error))
            found.append(name)  # the push reports it
    return found


def fetch_remote(context: Context, dataset: str) -> bool:
    """Fetch; return whether this node has a branch in the dataset. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    clone.fetch(context.access)
    return clone.tip(context.node) is not None


def push_again(context: Context, dataset: str, promote: bool, *, fetch: bool = False) -> PushOutcome:
    """Push once more; with `fetch`, fetch first. Raises MaoError. Blocking."""
    clone = Clone.open(context.data.clone(dataset))
    if fetch:
        clone.fetch(context.access)
    try:
        return push_branches(context, clone, promote=promote)
    except MergeConflict as conflict:
        raise branch_conflict(clone, conflict) from conflict
