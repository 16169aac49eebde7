"""Listings of runs, newest first, that merge live runs and the history.

All pages of a listing show the store at the revision of the first one, so a run that is moved meanwhile
occurs exactly once. For filtered listings, the index selects the runs of the history whose documents are
read.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from mao_shared import keys
from mao_shared.errors import RecordUnreadable
from mao_shared.models.run import Run
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Entry, Stored
from mao_shared.store.protocol import read_cursor, write_cursor
from mao_shared.store.records import StoredPage

from .records import IndexedRun, RunRecords, read_index

SCAN = 2000  # documents examined for one page of a filtered listing
LINES = 10  # index entries that cost as much as one document
PAGE = 200  # items per read
AT_ONCE = 50  # documents
_NEWEST, _OLDEST = "!", "~~"  # before and after all ids in the order of `keys.newest_first`


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Filter of a listing of runs; None means any.

    `since`, `until`: by the time in the id, which is the run's tick or the time of the request. `matches`:
    further condition on a run or its index entry.
    """

    pipeline: str | None = None
    phase: RunPhase | None = None
    since: datetime | None = None
    until: datetime | None = None
    matches: Callable[[Run | IndexedRun], bool] | None = None

    @property
    def is_filter(self) -> bool:
        return not (self.pipeline is None and self.phase is None and self.matches is None)

    def wants(self, run: Run | IndexedRun) -> bool:
        return (
            self.pipeline in (None, run.pipeline)
            and self.phase in (None, run.phase)
            and (self.matches is None or self.matches(run))
        )


ANY = RunQuery()
_Found = Stored[Run] | RecordUnreadable | IndexedRun


@dataclass(frozen=True, slots=True)
class _ListedRun:
    """An item of a stream. `place`: its id in the form of `keys.newest_first`."""

    place: str
    found: _Found


class _Stream:
    """Items ordered by place, read page by page."""

    def __init__(
        self, read: Callable[[str | None], Awaitable[tuple[list[_ListedRun], str | None]]], cursor: str | None
    ) -> None:
        self._read = read
        self._cursor = cursor
        self._items: list[_ListedRun] = []  # the next one last

    async def next(self) -> _ListedRun | None:
        while not self._items and self._cursor is not None:
            items, self._cursor = await self._read(self._cursor)
            self._items = items[::-1]
        return self._items.pop() if self._items else None


async def list_newest(
    records: RunRecords, limit: int, cursor: str | None = None, query: RunQuery = ANY
) -> StoredPage[Run]:
    """Return a page of runs; a filtered page may have fewer than `limit` items and a cursor.

    Raises InvalidInput (`cursor-invalid`), and Compacted for a cursor that is too old.
    """
    revision, last = await _begin(records, cursor, query)
    oldest = "" if query.since is None else _stamp(query.since)
    chosen: list[_Found] = []
    examined = 0
    async with aclosing(_merged(await _streams(records, revision, last, limit, query))) as items:
        async for item in items:
            name, found = keys.mirrored_run_id(item.place), item.found
            if name < oldest:
                break
            if len(chosen) == limit or examined >= SCAN * LINES:
                cursor = write_cursor(revision, records.prefix, records.prefix + last)
                return await _page(records, chosen, cursor, query)
            if name == last:  # duplicate, see `RunRecords.move`; the live run comes first
                continue
            last = name
            examined += 1 if isinstance(found, IndexedRun) else LINES
            wanted = found.record if isinstance(found, Stored) else found
            if isinstance(wanted, RecordUnreadable) or query.wants(wanted):
                chosen.append(found)
    return await _page(records, chosen, None, query)


async def past_runs_since(records: RunRecords, since: datetime) -> AsyncGenerator[IndexedRun, None]:
    """Yield the past runs since a time (by the time in their ids), newest first, from the index."""
    revision, _ = await _begin(records, None, ANY)
    async with aclosing(_merged(await _indexes(records, revision, _NEWEST, ANY))) as items:
        async for item in items:
            if keys.mirrored_run_id(item.place) < _stamp(since):
                return
            if isinstance(item.found, IndexedRun):
                yield item.found


async def past_runs_of(records: RunRecords, pipeline: str, limit: int) -> list[IndexedRun]:
    """Return the newest past runs of a pipeline, newest first, from the index."""
    query = RunQuery(pipeline=pipeline)
    revision, _ = await _begin(records, None, query)
    found: list[IndexedRun] = []
    async with aclosing(_merged(await _indexes(records, revision, _NEWEST, query))) as items:
        async for item in items:
            if isinstance(item.found, IndexedRun):
                found.append(item.found)
            if len(found) == limit:
                break
    return found


async def _begin(records: RunRecords, cursor: str | None, query: RunQuery) -> tuple[int, str]:
    """Return the revision to read at, and the id right before the first item."""
    if cursor is not None:
        revision, key = read_cursor(cursor, records.prefix)
        return revision, key.removeprefix(records.prefix)
    revision = (await records.store.list(records.prefix, limit=1)).revision
    return revision, "~" if query.until is None else f"{_stamp(query.until)}~"


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}"


async def _streams(
    records: RunRecords, revision: int, last: str, limit: int, query: RunQuery
) -> list[_Stream]:
    async def read_live(cursor: str | None) -> tuple[list[_ListedRun], str | None]:
        page = await records.store.list(records.prefix, limit=size, cursor=cursor, newest_first=True)
        return [_item(records, entry) for entry in page.entries], page.cursor

    async def read_past(cursor: str | None) -> tuple[list[_ListedRun], str | None]:
        page = await records.store.list(records.past_prefix, limit=size, cursor=cursor)
        return [_item(records, entry) for entry in page.entries], page.cursor

    size = PAGE if query.is_filter else min(limit + 1, PAGE)
    # "x~" is not an id but the position right before all ids that start with x, newest first.
    place = keys.newest_first(last) if not last.endswith("~") else keys.newest_first(last.rstrip("~"))[:-1]
    place = place or _NEWEST
    streams = [_Stream(read_live, write_cursor(revision, records.prefix, records.prefix + last))]
    if query.is_filter:
        return streams + await _indexes(records, revision, place, query)
    past = records.past_prefix
    return [*streams, _Stream(read_past, write_cursor(revision, past, past + place))]


def _item(records: RunRecords, entry: Entry) -> _ListedRun:
    found: _Found
    try:
        found = records.parse(entry)
    except RecordUnreadable as error:
        found = error
    return _ListedRun(keys.newest_first(records.name(entry.key)), found)


async def _indexes(records: RunRecords, revision: int, place: str, query: RunQuery) -> list[_Stream]:
    """Return a stream for each phase and pipeline in the index."""
    phases = sorted(RUN_ENDED) if query.phase is None else sorted(RUN_ENDED & {query.phase})
    root = keys.run_index_prefix(records.node)
    prefixes: list[str] = []
    for phase in phases:
        if query.pipeline is not None:
            prefixes.append(f"{root}{phase}/{query.pipeline}/")
        else:
            names = await _pipelines(records, f"{root}{phase}/", revision)
            prefixes += [f"{root}{phase}/{name}/" for name in names]
    return [_index(records, prefix, write_cursor(revision, prefix, prefix + place)) for prefix in prefixes]


def _index(records: RunRecords, prefix: str, cursor: str) -> _Stream:
    async def read(cursor: str | None) -> tuple[list[_ListedRun], str | None]:
        page = await records.store.list(prefix, limit=PAGE, cursor=cursor)
        read = ((entry, read_index(entry)) for entry in page.entries)
        items = [_ListedRun(keys.last_part(entry.key), found) for entry, found in read if found is not None]
        return items, page.cursor

    return _Stream(read, cursor)


async def _pipelines(records: RunRecords, prefix: str, revision: int) -> list[str]:
    """Return the pipelines under a phase of the index, by one short read each."""
    found: list[str] = []
    cursor = write_cursor(revision, prefix, prefix + _NEWEST)
    while entries := (await records.store.list(prefix, limit=1, cursor=cursor)).entries:
        name = entries[0].key.removeprefix(prefix).partition("/")[0]
        found.append(name)
        cursor = write_cursor(revision, prefix, f"{prefix}{name}/{_OLDEST}")
    return found


async def _merged(streams: Iterable[_Stream]) -> AsyncGenerator[_ListedRun, None]:
    """Merge streams in order; at the same place, the item of the earlier stream comes first."""
    waiting = list(streams)
    firsts = await asyncio.gather(*(stream.next() for stream in waiting))
    heap = [
        (item.place, number, item, stream)
        for number, (item, stream) in enumerate(zip(firsts, waiting, strict=True))
        if item is not None
    ]
    heapq.heapify(heap)
    while heap:
        _, number, item, stream = heap[0]
        yield item
        following = await stream.next()
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.place, number, following, stream))


async def _page(
    records: RunRecords, chosen: list[_Found], cursor: str | None, query: RunQuery
) -> StoredPage[Run]:
    """Return the page after reading the current documents of runs known only from the index."""
    for at in range(0, len(chosen), AT_ONCE):
        some = chosen[at : at + AT_ONCE]
        chosen[at : at + AT_ONCE] = await asyncio.gather(*(_document(records, item) for item in some))
    items = [item for item in chosen if isinstance(item, Stored) and query.wants(item.record)]
    return StoredPage(items, cursor, [item for item in chosen if isinstance(item, RecordUnreadable)])


async def _document(records: RunRecords, found: _Found) -> _Found:
    if not isinstance(found, IndexedRun):
        return found
    past = await records.store.get(keys.past_run(records.node, found.id))
    try:
        if past is not None:
            return records.parse(past)
        return await records.get(found.id) or found  # None if it was removed meanwhile
    except RecordUnreadable as error:
        return error
