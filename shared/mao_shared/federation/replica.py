"""The replica of the federation's records in the node's own store, and the budget for its writes.

The registry keeps the replica in step (`replicator.py`). A copy's value is the record's revision in the
federation's store, a line break, and the record, so a revision read here guards a write there.

The budget (pure; times are arguments) prevents other nodes' writes from filling this node's store. etcd keeps
every version of a copy for an hour or two, so limiting the size of the copies is not enough: a node that
rewrites one record without end would fill the store. Therefore a key is copied `BURST` times and then once
per `GAP`; changes in between are held, and the latest is written at the end of the gap, or as soon as the
federation is unreachable and readers depend on the copies. The bytes written per `HOUR` under one prefix are
limited to `REWRITES` times its quota; beyond that, changes are skipped until the hour is over, and everything
is listed again. Deletions are never held: there is at most one per written copy. One member can thus make
every other node write at most about 400 MB an hour, of the 2 GB that its etcd may take.

Copies may therefore be older than the changes received. `lacking` is the first change that they lack, and
`Contact` promises no more: its time and revision are those up to which *all* copies are current.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from mao_shared import keys
from mao_shared.models.common import STORED
from mao_shared.models.federation import Contact
from mao_shared.store import Entry, Page, Store

PREFIXES = (  # all keys below these are copied
    keys.registry_root(),
    keys.members_prefix(),
    keys.cores_prefix(),
    keys.identities_prefix(),
    keys.signers_prefix(),
)
_PEER_RUNS = re.compile(re.escape(keys.all_peers()) + r"[^/]+/(?:runs/|parts/|node$)")


def is_replicated(key: str) -> bool:
    """Return True if a key, or every key under a prefix, is copied.

    Rounds and the records that they depend on are never copied.
    """
    return key.startswith(PREFIXES) or key == keys.federation() or _PEER_RUNS.match(key) is not None


def pack_copy(entry: Entry) -> bytes:
    """Return the value of the copy of an entry."""
    return f"{entry.revision}\n".encode() + entry.value


LISTED = (*PREFIXES, keys.federation(), keys.all_peers())  # prefixes that may contain copied keys


class Replica:
    """Read access to the copies of the current federation's records."""

    def __init__(self, own: Store, node: str) -> None:
        self._own = own
        self._node = node
        self.prefix = keys.known_prefix(node)

    async def read_contact(self) -> tuple[Contact | None, int]:
        """Return the last contact with the federation and that record's revision (0: none)."""
        entry = await self._own.get(keys.contact(self._node))
        if entry is None:
            return None, 0
        try:
            return Contact.model_validate_json(entry.value, context=STORED), entry.revision
        except ValidationError:  # of another version; the registry rewrites it
            return None, entry.revision

    async def contact(self, name: str) -> Contact | None:
        """Return the contact with this federation; None without a complete copy of its records."""
        contact, _ = await self.read_contact()
        whole = contact is not None and contact.federation == name and contact.as_of is not None
        return contact if whole else None

    async def get(self, key: str) -> Entry | None:
        entry = await self._own.get(self.prefix + key)
        return None if entry is None else self.unpack(entry)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        """Like `Store.list`; the page's revision is the node's own store's."""
        page = await self._own.list(
            self.prefix + prefix, limit=limit, cursor=cursor, newest_first=newest_first
        )
        return Page([self.unpack(entry) for entry in page.entries], page.revision, page.cursor)

    def unpack(self, entry: Entry) -> Entry:
        """Return the federation's entry that a copy holds."""
        revision, _, value = entry.value.partition(b"\n")
        is_valid = revision.isdigit() and len(revision) < 19
        copied = int(revision) if is_valid else 0  # 0: older than any revision
        return Entry(entry.key.removeprefix(self.prefix), value, copied)


BURST = 20  # copies of one key without a pause; enough for an operator's changes and for enrolments
GAP = 30.0  # seconds between two copies of one key after the burst
HOUR = 3600.0  # seconds
MAX_RECORD_BYTES = 1_000_000  # of a registry record
MAX_PEER_RECORD_BYTES = 256 << 10  # of a record under a node's own prefix
MAX_COPIED_BYTES = 64_000_000  # bytes of all copies under one of LISTED
MAX_BYTES_PER_NODE = 16_000_000  # the same for one node's own prefix
REWRITES = 4  # how often the quota may be written per hour
OVERHEAD = 300  # bytes that the store needs for a record besides key and value
UNKNOWN = -math.inf  # time of a change that was found by a listing


def copy_size(entry: Entry) -> int:
    """Return the size of a copy in bytes; its key counts twice, since a deletion stores it again."""
    return 2 * len(entry.key.encode()) + len(entry.value) + OVERHEAD


def is_too_large(entry: Entry) -> bool:
    most = MAX_RECORD_BYTES if entry.key.startswith(keys.registry_root()) else MAX_PEER_RECORD_BYTES
    return copy_size(entry) > most


def quota_prefixes(key: str) -> Iterator[tuple[str, int]]:
    """Yield each prefix whose quota a key uses, with the quota in bytes."""
    yield next((prefix for prefix in LISTED if key.startswith(prefix)), ""), MAX_COPIED_BYTES
    if key.startswith(keys.all_peers()):
        yield keys.peer_root(keys.split_peer(key)[0]), MAX_BYTES_PER_NODE


@dataclass(frozen=True, slots=True)
class MissingChange:
    """A change that is not copied yet: the time it was received, and its revision."""

    since: float
    revision: int


@dataclass(slots=True)
class _HeldChange:
    entry: Entry
    missing: MissingChange  # the first of the held changes


@dataclass(slots=True)
class _Hour:
    begin: float
    spent: int = 0  # bytes written
    held: int = 0  # bytes held, to be written later
    full: bool = False


class ReplicationBudget:
    """Decides when each change is copied. `now` is in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._held: dict[str, _HeldChange] = {}
        self._left: MissingChange | None = None  # the first change skipped since the last listing
        self._list_at = math.inf  # when there is room again for some skipped changes
        self._next_free: dict[str, float] = {}  # by key: when the next copy may be written
        self._sweep_at = -math.inf
        self._hours: dict[str, _Hour] = {}

    def admit(self, entry: Entry, now: float, *, at_once: bool = False) -> bool:
        """Return True to write the entry now; otherwise it is held until `due` returns it, or skipped.

        `at_once`: never hold it, because a listing found it, so it has been missing for an unknown time, or
        because it was held and no newer change can arrive.
        """
        before = self._held.get(entry.key)
        missing = before.missing if before else MissingChange(UNKNOWN if at_once else now, entry.revision)
        self.drop(entry.key)
        if full := self._full(entry, now):
            self._left = self._left or missing
            self._list_at = min(self._list_at, max(hour.begin for hour in full) + HOUR)
            return False
        if not at_once and self._is_early(entry.key, now):
            self._held[entry.key] = _HeldChange(entry, missing)
            for hour in self._hour_windows(entry.key):
                hour.held += copy_size(entry)
            return False
        self._note(entry, now)
        return True

    def due(self, now: float, *, at_once: bool = False) -> list[Entry]:
        """Return the held entries that may be written now; pass them to `admit` again."""
        return [held.entry for key, held in self._held.items() if at_once or not self._is_early(key, now)]

    def drop(self, key: str) -> None:
        """Discard the held entry of a key, because its record was deleted."""
        if held := self._held.pop(key, None):
            for hour in self._hour_windows(key):
                hour.held -= copy_size(held.entry)

    def held_revision(self, key: str) -> int:
        """Return the revision of the entry held for a key, or 0."""
        return self._held[key].entry.revision if key in self._held else 0

    @property
    def lacking(self) -> MissingChange | None:
        """The first change that the copies lack, or None."""
        lacks = [held.missing for held in self._held.values()] + ([self._left] if self._left else [])
        return min(lacks, key=lambda missing: missing.since, default=None)

    @property
    def is_waiting(self) -> bool:
        """True if the results of `due` or `wants_listing` may change with time alone."""
        return bool(self._held) or self._left is not None

    def wants_listing(self, now: float) -> bool:
        """Return True if there is room now for changes that were skipped."""
        return now >= self._list_at

    def begin_listing(self) -> None:
        """Reset before all entries are passed to `admit` again."""
        for key in list(self._held):
            self.drop(key)
        self._left, self._list_at = None, math.inf

    def _full(self, entry: Entry, now: float) -> list[_Hour]:
        """Return the hour windows that lack room for the entry, or lacked room for an earlier one."""
        for prefix, most in quota_prefixes(entry.key):
            hour = self._hours.get(prefix)
            if hour is None or now >= hour.begin + HOUR:
                hour = self._hours[prefix] = _Hour(now, held=hour.held if hour else 0)
            hour.full = hour.full or hour.spent + hour.held + copy_size(entry) > REWRITES * most
        return [hour for hour in self._hour_windows(entry.key) if hour.full]

    def _is_early(self, key: str, now: float) -> bool:
        return self._next_free.get(key, now) - now > (BURST - 1) * GAP

    def _note(self, entry: Entry, now: float) -> None:
        self._next_free[entry.key] = max(self._next_free.get(entry.key, now), now) + GAP
        if now >= self._sweep_at:
            self._next_free = {key: free_at for key, free_at in self._next_free.items() if free_at > now}
            self._sweep_at = now + GAP
        for hour in self._hour_windows(entry.key):
            hour.spent += copy_size(entry)

    def _hour_windows(self, key: str) -> list[_Hour]:
        return [self._hours[prefix] for prefix, _ in quota_prefixes(key)]
