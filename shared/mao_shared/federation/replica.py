"""The replica of the federation's records in the node's own store, and the budget for its writes.

The registry keeps the replica in step (`replicator.py`). A copy's value is the revision that the record had
in the federation's store, a line break, and the record: a guard that was read here holds there.

The budget is pure (times are given); it keeps others' writes from filling this node's store. etcd keeps every
version of a copy for an hour or two, so a limit on the size of the copies is not enough: a node that rewrites
one record without end would fill the store. Therefore a key is copied `BURST` times and then once in `GAP`;
its changes meanwhile are held, and the latest is written when that is over, or as soon as the federation is
away, since then the copies count. What is written in an `HOUR` under one prefix may not be more than
`REWRITES` times what may lie there; then nothing more is taken there until the hour is over, and all is
listed again. Deletions are not held: there is at most one for each copy that was written. One member can so
make every other node write some 400 MB an hour at most, of the 2 GB that its etcd may take.

So copies may be older than what was received. `lacking` says since when, and `Contact` promises no more:
its time and revision are those up to which *all* copies are true, since readers continue from there.
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

PREFIXES = (  # of keys that are all copied
    keys.registry_root(),
    keys.members_prefix(),
    keys.cores_prefix(),
    keys.identities_prefix(),
    keys.signers_prefix(),
)
_PEER_RUNS = re.compile(re.escape(keys.all_peers()) + r"[^/]+/(?:runs/|parts/|node$)")


def is_replicated(key: str) -> bool:
    """Return whether a key, or all under a prefix, is kept as a copy.

    Rounds and the records that they depend on never are.
    """
    return key.startswith(PREFIXES) or key == keys.federation() or _PEER_RUNS.match(key) is not None


def pack_copy(entry: Entry) -> bytes:
    """Return the value of the copy of an entry."""
    return f"{entry.revision}\n".encode() + entry.value


LISTED = (*PREFIXES, keys.federation(), keys.all_peers())  # under which there may be keys that are copied


class Replica:
    """What is known of the federation `name` (its id); of another federation nothing is."""

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
        except ValidationError:  # another version's; the registry rewrites it
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
        ours = revision.isdigit() and len(revision) < 19
        known = int(revision) if ours else 0  # not written by us: older than all
        return Entry(entry.key.removeprefix(self.prefix), value, known)


BURST = 20  # copies of one key without a pause: all that an operator, or nodes that enrol, change in a row
GAP = 30.0  # seconds between two copies of one key after that
HOUR = 3600.0  # seconds
MAX_RECORD_BYTES = 1_000_000  # of a registry record
MAX_PEER_RECORD_BYTES = 256 << 10  # of a record that a node writes about itself
MAX_COPIED_BYTES = 64_000_000  # bytes of all copies under one of LISTED
MAX_BYTES_PER_NODE = 16_000_000  # the same for what one node writes of itself
REWRITES = 4  # how often all of that may be written in an hour
OVERHEAD = 300  # bytes that a store needs for a record beside key and value
UNKNOWN = -math.inf  # when something was changed that was found by a listing


def copy_size(entry: Entry) -> int:
    """Return the bytes that a copy takes; its key counts twice, since a deletion stores it again."""
    return 2 * len(entry.key.encode()) + len(entry.value) + OVERHEAD


def is_too_large(entry: Entry) -> bool:
    most = MAX_RECORD_BYTES if entry.key.startswith(keys.registry_root()) else MAX_PEER_RECORD_BYTES
    return copy_size(entry) > most


def quota_prefixes(key: str) -> Iterator[tuple[str, int]]:
    """Yield the prefixes whose quota a key uses, and each quota in bytes."""
    yield next((prefix for prefix in LISTED if key.startswith(prefix)), ""), MAX_COPIED_BYTES
    if key.startswith(keys.all_peers()):
        yield keys.peer_root(keys.split_peer(key)[0]), MAX_BYTES_PER_NODE


@dataclass(frozen=True, slots=True)
class MissingChange:
    """A change that is not copied yet: when it was received, and its revision."""

    since: float
    revision: int


@dataclass(slots=True)
class _HeldChange:
    entry: Entry
    missing: MissingChange  # the first of the changes that are held


@dataclass(slots=True)
class _Hour:
    begin: float
    spent: int = 0  # bytes written
    held: int = 0  # bytes that will be
    full: bool = False


class ReplicationBudget:
    """Decides when each change is copied; `now` is in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._held: dict[str, _HeldChange] = {}
        self._left: MissingChange | None = None  # the first change that was left out since the last listing
        self._list_at = math.inf  # when there is room again for some of what was left out
        self._next_free: dict[str, float] = {}  # key → when its copies would be a GAP apart again
        self._sweep_at = -math.inf
        self._hours: dict[str, _Hour] = {}

    def admit(self, entry: Entry, now: float, *, at_once: bool = False) -> bool:
        """Return whether to write the entry now; otherwise it is held until `due` returns it, or left out.

        `at_once`: it is not held, since it was found by a listing, and so is lacking for an unknown time, or
        since it has been held and nothing new can come.
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
        """Discard what is held of a key, because its record was deleted."""
        if held := self._held.pop(key, None):
            for hour in self._hour_windows(key):
                hour.held -= copy_size(held.entry)

    def held_revision(self, key: str) -> int:
        """Return the revision of the entry held for a key, or 0."""
        return self._held[key].entry.revision if key in self._held else 0

    @property
    def lacking(self) -> MissingChange | None:
        """The first change that the copies do not have."""
        lacks = [held.missing for held in self._held.values()] + ([self._left] if self._left else [])
        return min(lacks, key=lambda missing: missing.since, default=None)

    @property
    def is_waiting(self) -> bool:
        """True if `due` and `wants_listing` may change with time alone."""
        return bool(self._held) or self._left is not None

    def wants_listing(self, now: float) -> bool:
        """Return whether something was left out for which there is room now."""
        return now >= self._list_at

    def begin_listing(self) -> None:
        """Reset before all entries are passed to `admit` again."""
        for key in list(self._held):
            self.drop(key)
        self._left, self._list_at = None, math.inf

    def _full(self, entry: Entry, now: float) -> list[_Hour]:
        """Those of its accounts that have no room for it, or had none for another in this hour."""
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
