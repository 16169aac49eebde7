"""The runs of a node: active and recently ended ones, and the history of settled ones.

    runs/<id>                                  documents that services mirror, watch and write
    runs-history/<id, newest first>            the same documents, compressed to a tenth to a quarter of the
    JSON runs-index/<phase>/<pipeline>/<id, …>      index entries for filters and retention

A run is settled when it has ended and its document will not change any more. The scheduler then moves it to
the history: document and index entry in one transaction, guarded by the revision that it read. Services thus
list only recent runs at their start. A run is under exactly one of the two keys, and readers by name find it
under either. A run that is written again (a missed tick queued by a backfill) is moved back in one
transaction too.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.errors import RecordUnreadable
from mao_shared.models.common import STORED
from mao_shared.models.run import CoveredTicks, PastRun, Run, Trigger, time_in_id
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Check, Delete, Entry, Put, Records, Store, Stored, Unreadable, Write, dump
from mao_shared.store.unreadable import Misplaced

MAX_UNPACKED = 16_000_000  # bytes of a document; etcd accepts a tenth of that
_DEFLATED = b"\x01"
_RAW = -zlib.MAX_WBITS  # without header and checksum; etcd has its own
_DICTIONARY = (
    b'"covers":{"since":","until":","count":"reproduces":{"run":","step":","snapshot":","attempt":1}'
    b'"retry_of":"cancel":{"requested_at":","reason":","missed":"late","overlap","coalesced","paused"'
    b'"error":{"code":","detail":","next":"maoctl ","fault":"tool"}"request_id":"'
    b'"waiting":"oom":true"timed_out":true"not_before":"reproduced":{"identical":'
    b'"vote":{"algorithm_name":","parameters":{"fields":{"key":{"lfs_above":'
    b'"metrics":[{"name":","file":","column":","unit":","kind":"rows","path":"'
    b'"trigger":"manual","phase":"failed","phase":"cancelled","phase":"missed","phase":"skipped","phase":"lost"'
    b'{"id":"20260101T000000Z-","pipeline":","node":"node-1","trigger":"schedule","phase":"succeeded",'
    b'"scheduled_for":"2026-01-01T00:00:00Z","schedule":","created_at":"2026-01-01T00:00:00.0Z","started_at":"2026'
    b'","finished_at":"2026-","overlap":"skip","steps":[{"spec":{"name":","tool":","image":{"name":"'
    b':latest","pinned":"@sha256:","platform":"linux/amd64"},"command":["python","sh","-c","--'
    b'"],"env":{},"limits":{"memory":1073741824,"pids":512,"time":3600.0,"grace":10.0},"network":"bridge",'
    b'"privileges":{"capabilities":[],"new_privileges":false},"output":{"name":","master":"ssh://git@https://.git'
    b'","branch":"node-1"},"input":{"name":","master":".git","branch":"ground-truth"},'
    b'"retry":{"attempts":1,"backoff":30.0,"on":["tool","engine","infrastructure"]},"allow_empty":false,'
    b'"on_late_truth":"skip","metrics":[]},"phase":"succeeded","attempt":1,"times":{"preparing":"2026-'
    b'Z","ready":"Z","starting":"Z","running":"Z","exited":"Z","publishing":"Z","succeeded":"'
    b'Z"},"container_id":"","exit":{"code":0,"oom":false,"timed_out":false},"log_bytes":0,"log_sha256":"'
    b'","user":"1000:1000","engine":"docker 28.0.1","base_commit":","input_commit":","snapshot":"'
    b'","ground_truth":","pushed":true,"metrics":{}},{"spec":{"name":"}]}'
)


def pack_run(document: bytes) -> bytes:
    """Return the document compressed; `unpack_run` restores it byte for byte.

    The first byte is the format: `{` is plain JSON, 1 is deflated with the dictionary above. A dictionary
    must never change once stores contain data compressed with it.
    """
    deflate = zlib.compressobj(6, zlib.DEFLATED, _RAW, zdict=_DICTIONARY)
    packed = _DEFLATED + deflate.compress(document) + deflate.flush()
    return packed if len(packed) < len(document) or document[:1] != b"{" else document


def unpack_run(packed: bytes) -> bytes:
    """Return the document that `pack_run` packed; raises ValueError for damaged data or unknown formats."""
    if packed[:1] == b"{":
        return packed
    if packed[:1] != _DEFLATED:
        raise ValueError("it is compressed in a format that this version does not know")
    inflate = zlib.decompressobj(_RAW, zdict=_DICTIONARY)
    try:
        document = inflate.decompress(packed[1:], MAX_UNPACKED)
    except zlib.error:
        raise ValueError("it is damaged and cannot be decompressed") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it is damaged: data is missing or left over")
    return document


MOVED_AT_ONCE = 32  # runs; three writes each, of etcd's 128
REMOVED_AT_ONCE = 64  # two each
NEAR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run and its stored document."""

    entry: Entry
    run: Run


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """A run of the history, from its index entry. `revision`: of the entry and of the document."""

    id: str
    pipeline: str
    phase: RunPhase
    revision: int
    trigger: Trigger
    schedule: str | None
    scheduled_for: datetime | None
    finished_at: datetime
    covers: CoveredTicks | None
    started_at: datetime | None = None
    quarantined: bool = False


def is_settled(run: Run, now: datetime, after: timedelta) -> bool:
    """Return True if the run ended at least `after` ago and all its commits are pushed. Pure.

    An end far in the future, from a clock that was set back, counts as well.
    """
    if run.phase not in RUN_ENDED or any(step.late for step in run.steps):
        return False
    return abs(now - (run.finished_at or run.created_at)) >= after


class RunRecords(Records[Run]):
    """The runs of a node. `get`, `find`, `create` and `replace` include the history.

    `page`, `all` and mirrors cover only runs outside the history; `listing.py` lists both.
    """

    def __init__(self, store: Store, node: str, unreadable: Unreadable | None = None) -> None:
        super().__init__(store, keys.runs_prefix(node), Run, unreadable)
        self.node = node
        self.past_prefix = keys.past_runs_prefix(node)

    # reading

    async def entry(self, name: str) -> Entry | None:
        """Return the stored entry, even if the run is moved to or from the history meanwhile."""
        live = self.prefix + name
        for key in (live, keys.past_run(self.node, name), live):
            if (found := await self.store.get(key)) is not None:
                return found
        return None

    async def get(self, name: str) -> Stored[Run] | None:
        found = await self.entry(name)
        if found is not None:
            return self.parse(found)
        self.note_absent(self.prefix + name)
        self.note_absent(keys.past_run(self.node, name))
        return None

    def parse(self, entry: Entry) -> Stored[Run]:
        if not entry.key.startswith(self.past_prefix):
            return super().parse(entry)
        try:
            document = unpack_run(entry.value)
        except ValueError as error:
            raise self.refuse(entry, Misplaced(str(error))) from error
        return super().parse(Entry(entry.key, document, entry.revision))

    def check(self, entry: Entry, record: Run) -> None:
        if record.id != self.name(entry.key):
            raise Misplaced("its id is not the name in its key")

    def name(self, key: str) -> str:
        """Return the run id in a live or past key."""
        if key.startswith(self.past_prefix):
            return keys.mirrored_run_id(key.removeprefix(self.past_prefix))
        return key.removeprefix(self.prefix)

    # writing

    def absent(self, *names: str) -> list[Check]:
        """Return transaction checks that none of these runs exists.

        For several ids of about the same time, one check covers the whole period of the history.
        """
        live = [Check(self.prefix + name, 0) for name in names]
        first, last = min(names), max(names)
        since, until = time_in_id(first), time_in_id(last)
        near = (
            since is not None and until is not None and until - since <= NEAR
        )  # etcd checks every key in between
        if first == last or not near:
            return live + [Check(keys.past_run(self.node, name), 0) for name in names]
        return [*live, Check(keys.past_run(self.node, last), 0, until=keys.past_run(self.node, first) + "\0")]

    async def create(self, name: str, record: Run, *, lease: int | None = None) -> int | None:
        return await self.store.transact(self.absent(name), [Put(self.prefix + name, dump(record), lease)])

    async def replace(self, name: str, record: Run, revision: int) -> int | None:
        """Restore an active run from the history at that revision."""
        written = await super().replace(name, record, revision)
        if written is not None:
            return written
        past = await self.store.get(keys.past_run(self.node, name))
        if past is None or past.revision != revision:
            return None
        index = self._index_key(self.parse(past).record)
        return await self.store.transact(
            [Check(past.key, revision), Check(self.prefix + name, 0)],
            [Put(self.prefix + name, dump(record)), Delete(past.key), Delete(index)],
        )

    # the history

    async def live_page(self, limit: int, cursor: str | None) -> tuple[list[LiveRun], str | None]:
        """Return the readable runs of a page of live runs, ordered by id, and the next cursor."""
        page = await self.store.list(self.prefix, limit=limit, cursor=cursor)
        found: list[LiveRun] = []
        for entry in page.entries:
            try:
                found.append(LiveRun(entry, self.parse(entry).record))
            except RecordUnreadable:
                continue
        return found, page.cursor

    async def move(self, runs: Sequence[LiveRun]) -> int:
        """Move up to MOVED_AT_ONCE runs to the history; return their number. Skips runs changed meanwhile."""
        if await self._move(runs):
            return len(runs)
        moved = 0
        for live in runs:  # if it is in the history too, an old version has recreated it: this one is newer
            past = await self.store.get(keys.past_run(self.node, live.run.id))
            moved += await self._move([live], past)
        return moved

    async def _move(self, runs: Sequence[LiveRun], past: Entry | None = None) -> bool:
        """Move runs in one transaction. `past`: the existing history entry of a single run, to replace."""
        checks: list[Check] = []
        writes: list[Write] = []
        for run, entry in ((live.run, live.entry) for live in runs):
            key, index = keys.past_run(self.node, run.id), self._index_key(run)
            checks += [Check(entry.key, entry.revision), Check(key, past.revision if past else 0)]
            indexed = PastRun(
                trigger=run.trigger,
                schedule=run.schedule,
                scheduled_for=run.scheduled_for,
                started_at=run.started_at,
                finished_at=run.finished_at or run.created_at,
                covers=run.covers,
                quarantined=run.quarantined,
            )
            writes += [Delete(entry.key), Put(key, pack_run(entry.value)), Put(index, dump(indexed))]
        if past is not None:
            before = self._index_key(self.parse(past).record)
            writes += [] if before in {write.key for write in writes} else [Delete(before)]
        return await self.store.transact(checks, writes) is not None

    def _index_key(self, run: Run) -> str:
        return keys.run_index(self.node, run.phase, run.pipeline, run.id)

    async def index_page(self, limit: int, cursor: str | None) -> tuple[list[IndexedRun], str | None]:
        """Return the readable entries of an index page (by phase, pipeline, newest first) and the cursor."""
        page = await self.store.list(keys.run_index_prefix(self.node), limit=limit, cursor=cursor)
        found = (read_index(entry) for entry in page.entries)
        return [indexed for indexed in found if indexed is not None], page.cursor

    async def remove(self, runs: Sequence[IndexedRun]) -> int:
        """Delete up to REMOVED_AT_ONCE past runs; return their number. Skips runs restored meanwhile."""
        if await self._remove(runs):
            return len(runs)
        return sum([await self._remove([run]) for run in runs])

    async def _remove(self, runs: Sequence[IndexedRun]) -> bool:
        checks: list[Check] = []
        for run in runs:
            index = keys.run_index(self.node, run.phase, run.pipeline, run.id)
            checks += [Check(index, run.revision), Check(keys.past_run(self.node, run.id), run.revision)]
        done = await self.store.transact(checks, [Delete(check.key) for check in checks]) is not None
        for check in checks if done else ():
            self.note_absent(check.key)
        return done


def read_index(entry: Entry) -> IndexedRun | None:
    """Return the indexed run; None if this version cannot read the entry."""
    try:
        phase, pipeline, run_id = keys.split_run_index(entry.key)
        past = PastRun.model_validate_json(entry.value, context=STORED)
        return IndexedRun(
            id=run_id,
            pipeline=pipeline,
            phase=RunPhase(phase),
            revision=entry.revision,
            trigger=past.trigger,
            schedule=past.schedule,
            scheduled_for=past.scheduled_for,
            started_at=past.started_at,
            finished_at=past.finished_at,
            covers=past.covers,
            quarantined=past.quarantined,
        )
    except ValueError:
        return None
