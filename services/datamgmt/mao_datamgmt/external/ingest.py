"""Accepts values of external programs for the dataset that declares their key, and commits them in batches.

A batch is committed every few seconds, or once it is full.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.push import Pusher
from mao_datamgmt.disk import require_space
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
    """Finds the dataset that declares a key. Datasets are cached for outages of the federation store."""

    def __init__(self, datasets: Records[Dataset]) -> None:
        self._datasets = datasets
        self._cached: dict[str, Dataset] = {}

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
            if declared not in self._cached:
                raise
            return self._cached[declared]
        self._cached[declared] = found
        return found

    async def record(self, name: str) -> Dataset | None:
        """Return a dataset's record; while the store is unavailable, the cached one."""
        try:
            stored = await self._datasets.get(name)
        except MaoError as error:
            if not isinstance(error, Unavailable) and error.code != CONDITION:
                raise
            return next((dataset for dataset in self._cached.values() if dataset.name == name), None)
        return None if stored is None else stored.record

    async def _known(self, key: str) -> Dataset | None:
        cached = self._cached.get(key)
        if cached is None:
            return None
        try:
            stored = await self._datasets.get(cached.name)
        except MaoError as error:
            if error.code != CONDITION:
                raise
            return cached  # any member of the federation can make a record unreadable
        return stored.record if stored is not None and key in stored.record.external else None


def first_part(key: str) -> str:
    """Return the first part of a key, which a dataset declares for all keys below it."""
    return key.partition("/")[0]


def declaring_dataset(key: str, datasets: list[Dataset]) -> Dataset:
    """Return the only dataset that declares the first part of a key. Pure."""
    full_key, key = key, first_part(key)
    declaring = [dataset for dataset in datasets if key in dataset.external]
    if not declaring:
        parent = f", below which {full_key!r} is" if full_key != key else ""
        raise NotFound(
            f"No dataset declares the key {key!r}{parent}, so its values cannot be stored.",
            code="external-key-unknown",
            next=f"Declare it on one: maoctl dataset external DATASET --key {key}",
        )
    if len(declaring) > 1:
        names = " and ".join(dataset.name for dataset in declaring)
        raise Conflict(
            f"The key {key!r} is declared by {names}; only one dataset can have its values.",
            code="external-key-ambiguous",
            next=f"Remove it from one: maoctl dataset external {declaring[-1].name} --remove-key {key}",
        )
    return declaring[0]


class Ingest:
    """Accepts values and commits them. `failures` maps a dataset to the last failed commit of its values."""

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
        self._stuck: set[str] = set()  # datasets with a failure that a retry cannot end
        self._limit = settings.max_external_value
        self._period = settings.external_period
        self._batch = settings.external_batch
        self._full = asyncio.Event()

    async def take(self, body: ExternalWrite, attempt: Attempt) -> Receipt:
        """Accept a value and write it to this node's disk.

        Raises the errors of `ExternalKeys.dataset_for` and `make_entry`, and Unavailable if no space is left.
        """
        entry = make_entry(body.key, body.value, attempt.at, attempt.token, self._limit)
        dataset = (await self._keys.dataset_for(body.key)).name
        await self._executor.read(require_space, self._context, len(entry.line))
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
        """Commit until cancelled, beginning with the values that an earlier process accepted."""
        await every(self._period, self.commit_all, name="inbox", wake=self._full, conditions=self._conditions)

    async def commit_all(self) -> None:
        """Commit the values waiting for all datasets; failed ones stay and are retried the next time."""
        names = await self._executor.read(self.inbox.datasets_to_process)
        await asyncio.gather(*(self._commit(name) for name in names))
        waiting = set(names)  # no value of the other datasets waits any more
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
            for error in blocked.values():
                raise error
        except Exception as error:  # noqa: BLE001 (whatever a dataset contains)
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
        """Report files that were set aside, and failures that block all values of the dataset."""
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
                next_step=f"Inspect it: cat '{path}'. Once repaired, move it back: mv '{path}' "
                f"'{path.parent.parent}'. Or delete it: rm -r '{path}'.",
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
        """Commit one batch; return True if there may be more.

        Keys whose values cannot be committed are added to `blocked` with the error.
        """
        entries = await self._executor.read(self.inbox.take, dataset, self._batch, BATCH_BYTES, set(blocked))
        if not entries:
            return False
        try:
            await self._commit_entries(dataset, entries)
        except InvalidInput:  # for instance a file in the place of one key's folder: commit the others
            for key in sorted({entry.key for entry in entries}):
                try:
                    await self._commit_entries(dataset, [entry for entry in entries if entry.key == key])
                except InvalidInput as error:
                    blocked[key] = error
        return True

    async def _commit_entries(self, dataset: str, entries: list[InboxEntry]) -> None:
        record = await self._keys.record(dataset)
        master = None if record is None else record.master
        commit_batch = partial(commit_entries, self._context, dataset, master, entries)
        commit = await self._executor.write([dataset], commit_batch)
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
        next="They are kept on the node and retried; see the data manager's log.",
        fault="infrastructure",
    )
