"""Commits what waits in the inbox, in batches: every few seconds, or as soon as there is a batch."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from mao_datamgmt.context import Context
from mao_datamgmt.pusher import Pusher
from mao_datamgmt.repository import TROUBLE
from mao_datamgmt.storage import require_room
from mao_datamgmt.works import Works
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.loops import Guard, for_ever, wait_at_most
from mao_shared.models import Failure
from mao_shared.models.external import ExternalState, ExternalWrite, Receipt
from mao_shared.web.idempotency import Attempt

from .commit import commit_entries
from .inbox import Inbox, make_entry
from .keys import ExternalKeys

if TYPE_CHECKING:
    from mao_datamgmt.settings import DataSettings

log = get_logger(__name__)
BATCH_BYTES = 8 << 20


class Listener:
    """Takes values in and commits them. `failures`: dataset → why its values are not committed yet."""

    def __init__(
        self,
        context: Context,
        works: Works,
        keys: ExternalKeys,
        pusher: Pusher,
        settings: DataSettings,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("inbox", conditions)
        self.failures: dict[str, Failure] = {}
        self.inbox = Inbox(context.data.inbox, settings.external_waiting)
        self._context = context
        self._works = works
        self._keys = keys
        self._pusher = pusher
        self._limit = settings.max_external_value
        self._period = settings.external_period
        self._batch = settings.external_batch
        self._full = asyncio.Event()

    async def take(self, body: ExternalWrite, attempt: Attempt) -> Receipt:
        """Returns when the value is on this node's disk.

        Raises what `ExternalKeys.dataset_of` and `make_entry` raise, and Unavailable when there is no room.
        """
        entry = make_entry(body.key, body.value, attempt.at, attempt.token, self._limit)
        dataset = (await self._keys.dataset_of(body.key)).name
        await self._works.read(require_room, self._context, len(entry.line))
        await self._works.read(self.inbox.put, dataset, entry)
        if self.inbox.waiting().get(dataset, 0) >= self._batch:
            self._full.set()
        return Receipt(id=entry.id, key=body.key, dataset=dataset, received_at=attempt.at)

    async def state(self, dataset: str) -> ExternalState:
        """What is declared and what waits for a dataset."""
        record = await self._keys.record(dataset)
        return ExternalState(
            dataset=dataset,
            keys=[] if record is None else record.external,
            waiting=self.inbox.waiting().get(dataset, 0),
            since=await self._works.read(self.inbox.oldest, dataset),
            failure=self.failures.get(dataset),
        )

    async def run(self) -> None:
        """Works until cancelled; begins with what an earlier process had taken in."""
        await for_ever("inbox", self._commit_and_wait, conditions=self._conditions)

    async def _commit_and_wait(self) -> None:
        await self.commit_all()
        await wait_at_most(self._full, self._period)

    async def commit_all(self) -> None:
        """One pass over all datasets; what fails stays, and is tried in the next."""
        self._full.clear()
        await asyncio.gather(*(self._commit(name) for name in self.inbox.waiting()))

    async def _commit(self, dataset: str) -> None:
        try:
            while await self._commit_batch(dataset):
                pass
        except Exception as error:  # noqa: BLE001 (whatever a stranger put into one dataset)
            if not isinstance(error, (MaoError, *TROUBLE)):
                self._guard.failed(dataset, error)
            failure = _failure(error)
            if self.failures.get(dataset) != failure:
                log.warning(
                    "external.not_committed", dataset=dataset, code=failure.code, error=failure.detail
                )
            self.failures[dataset] = failure
        else:
            self.failures.pop(dataset, None)
            self._guard.worked(dataset)

    async def _commit_batch(self, dataset: str) -> bool:
        """Whether there may be more."""
        entries = await self._works.read(self.inbox.take, dataset, self._batch, BATCH_BYTES)
        if not entries:
            return False
        record = await self._keys.record(dataset)
        master = None if record is None else record.master
        work = partial(commit_entries, self._context, dataset, master, entries)
        commit = await self._works.change([dataset], work)
        await self._works.read(self.inbox.remove, dataset, entries)
        if commit is not None:
            log.info("external.committed", dataset=dataset, values=len(entries), commit=commit)
            self._pusher.soon(dataset)
        return True


def _failure(error: Exception) -> Failure:
    if isinstance(error, MaoError):
        return Failure(code=error.code, detail=error.detail, next=error.next, fault="infrastructure")
    return Failure(
        code="external-not-committed",
        detail=f"The values could not be committed: {str(error) or type(error).__name__}.",
        next="They are kept on the node and tried again; look at the data manager's log.",
        fault="infrastructure",
    )
