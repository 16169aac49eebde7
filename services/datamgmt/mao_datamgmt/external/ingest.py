"""Values of programs outside: taken in for the dataset that declares their key, committed in batches.

A batch is committed every few seconds, or as soon as it is full.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.push import Pusher
from mao_datamgmt.disk import require_room
from mao_datamgmt.git_executor import GitExecutor
from mao_git import RepositoryError
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Dataset, Failure
from mao_shared.models.external import ExternalState, ExternalWrite, Receipt
from mao_shared.reconcile import Guard, every
from mao_shared.store import Records
from mao_shared.store.unreadable import CONDITION
from mao_shared.web.dependencies import Attempt

from .commit import commit_entries
from .inbox import Inbox, InboxEntry, make_entry

if TYPE_CHECKING:
    from mao_datamgmt.settings import DataSettings

log = get_logger(__name__)

BATCH_BYTES = 8 << 20


class ExternalKeys:
    """Finds the dataset of a key; remembers datasets for when the federation's store is unavailable."""

    def __init__(self, datasets: Records[Dataset]) -> None:
        self._datasets = datasets
        self._seen: dict[str, Dataset] = {}

    async def dataset_for(self, key: str) -> Dataset:
        """Return the dataset that declares a key.

        Raises NotFound (`external-key-unknown`), Conflict (`external-key-ambiguous`), Unavailable.
        """
        declared = first_part(key)
        try:
            found = await self._known(declared) or declaring_dataset(
                key, [stored.record async for stored in self._datasets.iterate()]
            )
        except Unavailable:
            if declared not in self._seen:
                raise
            return self._seen[declared]
        self._seen[declared] = found
        return found

    async def record(self, name: str) -> Dataset | None:
        """Return a dataset's record, or the last one seen while the store is unavailable."""
        try:
            stored = await self._datasets.get(name)
        except MaoError as error:
            if not isinstance(error, Unavailable) and error.code != CONDITION:
                raise
            return next((dataset for dataset in self._seen.values() if dataset.name == name), None)
        return None if stored is None else stored.record

    async def _known(self, key: str) -> Dataset | None:
        seen = self._seen.get(key)
        if seen is None:
            return None
        try:
            stored = await self._datasets.get(seen.name)
        except MaoError as error:
            if error.code != CONDITION:
                raise
            return seen  # any member can make it so
        return stored.record if stored is not None and key in stored.record.external else None


def first_part(key: str) -> str:
    """Return the part of a key that a dataset declares; all keys below it go to the same dataset."""
    return key.partition("/")[0]


def declaring_dataset(key: str, datasets: list[Dataset]) -> Dataset:
    """Return the one dataset that declares a key, by its first part. Pure."""
    whole, key = key, first_part(key)
    declaring = [dataset for dataset in datasets if key in dataset.external]
    if not declaring:
        below = f", below which {whole!r} is" if whole != key else ""
        raise NotFound(
            f"No dataset declares the key {key!r}{below}, so there is no place for its values.",
            code="external-key-unknown",
            next=f"Declare it on one: maoctl dataset external DATASET --key {key}",
        )
    if len(declaring) > 1:
        names = " and ".join(dataset.name for dataset in declaring)
        raise Conflict(
            f"The key {key!r} is declared by {names}; its values can go to one only.",
            code="external-key-ambiguous",
            next=f"Remove it from others: maoctl dataset external {declaring[-1].name} --remove-key {key}",
        )
    return declaring[0]


class Ingest:
    """Accepts values and commits them. `failures`: dataset → why its values are not committed yet."""

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        keys: ExternalKeys,
        pusher: Pusher,
        settings: DataSettings,
        conditions: Conditions,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("inbox", conditions)
        self.failures: dict[str, Failure] = {}
        self.inbox = Inbox(context.data.inbox, settings.external_waiting)
        self._context = context
        self._executor = executor
        self._keys = keys
        self._pusher = pusher
        self._reported: set[str] = set()
        self._stuck: set[str] = set()  # datasets whose failure no waiting ends
        self._limit = settings.max_external_value
        self._period = settings.external_period
        self._batch = settings.external_batch
        self._full = asyncio.Event()

    async def take(self, body: ExternalWrite, attempt: Attempt) -> Receipt:
        """Accept a value; return once it is on this node's disk.

        Raises what `ExternalKeys.dataset_for` and `make_entry` raise, and Unavailable when there is no room.
        """
        entry = make_entry(body.key, body.value, attempt.at, attempt.token, self._limit)
        dataset = (await self._keys.dataset_for(body.key)).name
        await self._executor.read(require_room, self._context, len(entry.line))
        await self._executor.read(self.inbox.put, dataset, entry)
        if self.inbox.waiting().get(dataset, 0) >= self._batch:
            self._full.set()
        return Receipt(id=entry.id, key=body.key, dataset=dataset, received_at=attempt.at)

    async def state(self, dataset: str) -> ExternalState:
        """Return the keys declared for a dataset, and the number of values waiting to be committed."""
        record = await self._keys.record(dataset)
        return ExternalState(
            dataset=dataset,
            keys=[] if record is None else record.external,
            waiting=self.inbox.waiting().get(dataset, 0),
            since=await self._executor.read(self.inbox.oldest, dataset),
            failure=self.failures.get(dataset),
        )

    async def run(self) -> None:
        """Commit until cancelled, beginning with what an earlier process had accepted."""
        await every(self._period, self.commit_all, name="inbox", wake=self._full, conditions=self._conditions)

    async def commit_all(self) -> None:
        """Commit the values waiting for all datasets; those that fail stay and are retried next time."""
        names = await self._executor.read(self.inbox.to_do)
        await asyncio.gather(*(self._commit(name) for name in names))
        waiting = set(names)  # the failures of other datasets have ended, for whatever reason
        for dataset in (self._reported | self.failures.keys()) - waiting:
            self._conditions.clear("inbox", dataset)
            self.failures.pop(dataset, None)
        self._reported &= waiting
        self._stuck &= waiting
        self._guard.keep(waiting)

    async def _commit(self, dataset: str) -> None:
        try:
            blocked: dict[str, InvalidInput] = {}
            while await self._commit_batch(dataset, blocked):
                pass
            for refusal in blocked.values():
                raise refusal
        except Exception as error:  # noqa: BLE001 (whatever a stranger put into one dataset)
            if not isinstance(error, (MaoError, RepositoryError, OSError)):
                self._guard.failed(dataset, error)
            failure = _failure(error)
            if self.failures.get(dataset) != failure:
                log.warning(
                    "external.not_committed", dataset=dataset, code=failure.code, error=failure.detail
                )
            self.failures[dataset] = failure
            stuck = isinstance(error, InvalidInput) or not isinstance(
                error, (MaoError, RepositoryError, OSError)
            )
            (self._stuck.add if stuck else self._stuck.discard)(dataset)
        else:
            self.failures.pop(dataset, None)
            self._guard.succeeded(dataset)
            self._stuck.discard(dataset)
        await self._report(dataset)

    async def _report(self, dataset: str) -> None:
        """Report entries that were set aside, and failures that hold up all values of the dataset."""
        aside = await self._executor.read(self.inbox.aside, dataset)
        failure = self.failures.get(dataset)
        self._reported.add(dataset)
        if aside:
            path, reason = next(iter(aside.items()))
            self._conditions.report(
                "inbox",
                dataset,
                detail=f"{len(aside)} of the values received for dataset {dataset} cannot be read and were "
                f"set aside; later ones are processed. The first is {path}: {reason}.",
                next_step=f"Look at it: cat '{path}'. Put it back once it is repaired: mv '{path}' "
                f"'{path.parent.parent}'. Or drop it: rm -r '{path}'.",
            )
        elif failure is not None and dataset in self._stuck:
            self._conditions.report(
                "inbox",
                dataset,
                detail=f"Values received for dataset {dataset} wait: {failure.detail}",
                next_step=failure.next or f"See why: maoctl dataset external {dataset}",
            )
        else:
            self._conditions.clear("inbox", dataset)
            self._reported.discard(dataset)

    async def _commit_batch(self, dataset: str, blocked: dict[str, InvalidInput]) -> bool:
        """Commit one batch; return whether there may be more.

        `blocked` collects the keys whose values cannot be committed, and why.
        """
        entries = await self._executor.read(self.inbox.take, dataset, self._batch, BATCH_BYTES, set(blocked))
        if not entries:
            return False
        try:
            await self._commit_entries(dataset, entries)
        except InvalidInput:  # such as a file where one key's folder should be: the other keys are processed
            for key in sorted({entry.key for entry in entries}):
                try:
                    await self._commit_entries(dataset, [entry for entry in entries if entry.key == key])
                except InvalidInput as refusal:
                    blocked[key] = refusal
        return True

    async def _commit_entries(self, dataset: str, entries: list[InboxEntry]) -> None:
        record = await self._keys.record(dataset)
        master = None if record is None else record.master
        work = partial(commit_entries, self._context, dataset, master, entries)
        commit = await self._executor.write([dataset], work)
        await self._executor.read(self.inbox.remove, dataset, entries)
        if commit is not None:
            log.info("external.committed", dataset=dataset, values=len(entries), commit=commit)
            self._pusher.schedule_push(dataset)


def _failure(error: Exception) -> Failure:
    if isinstance(error, MaoError):
        return Failure(code=error.code, detail=error.detail, next=error.next, fault="infrastructure")
    return Failure(
        code="external-not-committed",
        detail=f"The values could not be committed: {str(error) or type(error).__name__}.",
        next="They are kept on the node and tried again; look at the data manager's log.",
        fault="infrastructure",
    )
