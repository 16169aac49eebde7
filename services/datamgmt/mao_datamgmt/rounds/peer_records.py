"""What nodes have written about rounds, each under its own prefix of the federation store; and who votes.

What nodes have said of rounds, each under its own prefix of the federation's store.

Who has a say in a dataset's ground truth: the members that declare that they take part in it.

Nobody can say so for another: a part lies under its node's own prefix, and who is a member only core nodes
may write. The dataset's record, which any member can write, decides nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.models import Announcement, Attestation, Identity, Part, Record, Round, round_id
from mao_shared.models.common import STORED
from mao_shared.reconcile import Mirror
from mao_shared.store import Entry, Records, Store, Stored, Unreadable
from mao_shared.store.unreadable import way_out, why_unreadable

R = TypeVar("R", Announcement, Attestation)
MAX_REMEMBERED_COMMITS = 8  # commits that are remembered of one node and round: two are too many already
AnnouncementsByNode = Mapping[str, Stored[Announcement]]  # node → its announcement
_KINDS: dict[str, type[Announcement] | type[Attestation]] = {
    "announcements": Announcement,
    "attestations": Attestation,
}
_PARTS = "parts"


class _OtherRecord(Record):
    """Stands for what lies there and is not about rounds."""


class UnreadablePeerRecord(Record):
    """Stands for what lies where a node's word on a round belongs and is none: it says nothing."""


class PeerRecordStore(Records[Record]):
    """All that nodes say under their prefixes; only what is about rounds is read, and never fails to be."""

    def __init__(self, store: Store, unreadable: Unreadable | None = None) -> None:
        super().__init__(store, keys.all_peers(), Record, unreadable)

    def parse(self, entry: Entry) -> Stored[Record]:
        _, parts = keys.split_peer(entry.key)
        if len(parts) == 2 and parts[0] == _PARTS:
            part = parse_participation(entry)
            if part is None:
                self._tell(entry, "it is no part in its dataset")
                return Stored(_OtherRecord(), entry.revision)
            self.gone(entry.key)
            return Stored(part, entry.revision)
        model = _KINDS.get(parts[0]) if len(parts) == 3 else None
        if model is None:
            return Stored(_OtherRecord(), entry.revision)
        try:
            record = model.model_validate_json(entry.value, context=STORED)
        except Exception as error:  # noqa: BLE001 (a member's word, which may be anything)
            self._tell(entry, why_unreadable(error, entry.value))
            return Stored(UnreadablePeerRecord(), entry.revision)
        if [record.dataset, record.round] != parts[1:] or not _names_its_tick(record):
            self._tell(entry, "it is about another round than its key says")
            return Stored(UnreadablePeerRecord(), entry.revision)
        self.gone(entry.key)
        return Stored(record, entry.revision)

    def _tell(self, entry: Entry, why: str) -> None:
        """Shown as long as it lies there; what it is taken for is said by `parse`."""

        def again(now: Entry) -> None:
            if now.value == entry.value:
                raise RecordUnreadable.of(entry.key, why, way_out(entry.key))

        self.unreadable.note(self.store, again, RecordUnreadable.of(entry.key, why, way_out(entry.key)))


def parse_participation(entry: Entry) -> Part | None:
    """None for one that cannot be read or is of another dataset: who says so takes no part."""
    try:
        part = Part.model_validate_json(entry.value, context=STORED)
    except Exception:  # noqa: BLE001 (a member's word, which may be anything)
        return None
    return part if part.dataset == keys.last_part(entry.key) else None


def _names_its_tick(record: Announcement | Attestation) -> bool:
    """An announcement belongs to the round of its tick: else it could open that of another one as its own."""
    if isinstance(record, Attestation):
        return True
    return record.round == round_id(record.tick, record.pipeline, record.step)


def is_about_rounds(record: Record) -> bool:
    return isinstance(record, (Announcement, Attestation, UnreadablePeerRecord, Part))


def round_named_by(name: str) -> tuple[str, str] | None:
    """Dataset and round that a record of the peers' mirror is about; None for other things."""
    _, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] in _KINDS else None


def participation_of(name: str) -> tuple[str, str] | None:
    """Dataset and node of a part in the peers' mirror; None for other things."""
    node, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], node) if len(parts) == 2 and parts[0] == _PARTS else None


def dataset_named_by(name: str) -> str | None:
    """Of anything in the peers' mirror."""
    place = round_named_by(name) or participation_of(name)
    return None if place is None else place[0]


class PeerRecords:
    """The peers' mirror by dataset, round and node; and what nodes were ever heard to announce."""

    def __init__(
        self, store: Store, unreadable: Unreadable | None = None, conditions: Conditions | None = None
    ) -> None:
        self.mirror: Mirror[Record] = Mirror(
            PeerRecordStore(store, unreadable), keep=is_about_rounds, conditions=conditions
        )
        self._names: dict[str, dict[str, set[str]]] = {}  # dataset → round → names in the mirror
        self._before: defaultdict[tuple[str, str], defaultdict[str, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )
        self._parts: defaultdict[str, set[str]] = defaultdict(set)  # dataset → nodes
        self._garbled: set[str] = set()
        self.mirror.subscribe(self._changed)

    def _changed(self, name: str) -> None:
        stored = self.mirror.get(name)
        if (part := participation_of(name)) is not None:
            self._take_part(*part, there=stored is not None)
        place = round_named_by(name)
        if place is None:
            return
        self._garbled.discard(name)
        if stored is None or isinstance(stored.record, UnreadablePeerRecord):
            self._forget(place, name)
            self._garbled |= set() if stored is None else {name}
            return
        dataset, round_id = place
        self._names.setdefault(dataset, {}).setdefault(round_id, set()).add(name)
        if isinstance(stored.record, Announcement) and stored.record.commit is not None:
            words = self._before[place][_node_of(name)]
            if len(words) < MAX_REMEMBERED_COMMITS:
                words.add(stored.record.commit)

    def _take_part(self, dataset: str, node: str, *, there: bool) -> None:
        if there:
            self._parts[dataset].add(node)
        elif dataset in self._parts:
            self._parts[dataset].discard(node)
            if not self._parts[dataset]:
                del self._parts[dataset]

    def _forget(self, place: tuple[str, str], name: str) -> None:
        dataset, round_id = place
        rounds = self._names.get(dataset, {})
        names = rounds.get(round_id, set())
        names.discard(name)
        if not names:
            rounds.pop(round_id, None)
            self._before.pop(place, None)
        if not rounds:
            self._names.pop(dataset, None)

    def _of(self, dataset: str, round_id: str) -> set[str]:
        return self._names.get(dataset, {}).get(round_id, set())

    def parts(self, dataset: str) -> set[str]:
        """Nodes that say that they take part in a dataset, members or not."""
        return set(self._parts.get(dataset, ()))

    def parts_of(self, node: str) -> set[str]:
        """Datasets in which a node says that it takes part."""
        return {dataset for dataset, nodes in self._parts.items() if node in nodes}

    def garbled(self, dataset: str) -> dict[str, int]:
        """Key → revision of what nodes have put where their words on the dataset's rounds belong."""
        found = ((name, round_named_by(name), self.mirror.get(name)) for name in self._garbled)
        return {
            keys.all_peers() + name: stored.revision
            for name, place, stored in found
            if stored is not None and place is not None and place[0] == dataset
        }

    def before(self, dataset: str, round_id: str) -> dict[str, set[str]]:
        """The commits that each node was heard to announce."""
        return dict(self._before.get((dataset, round_id), {}))

    def rounds(self, dataset: str) -> list[str]:
        """Rounds of which anything was heard."""
        return list(self._names.get(dataset, {}))

    def speaks_of(self, name: str) -> bool:
        """Whether anything is there about a round, `<dataset>/<id>`."""
        dataset, _, round_id = name.partition("/")
        return bool(self._of(dataset, round_id))

    def datasets(self) -> set[str]:
        return set(self._names)

    def announced(self, dataset: str, round_id: str) -> dict[str, Stored[Announcement]]:
        found = ((name, self.mirror.get(name)) for name in self._of(dataset, round_id))
        return {
            _node_of(name): Stored(stored.record, stored.revision)
            for name, stored in found
            if stored is not None and isinstance(stored.record, Announcement)
        }

    def attested(self, dataset: str, round_id: str) -> dict[str, Stored[Attestation]]:
        found = ((name, self.mirror.get(name)) for name in self._of(dataset, round_id))
        return {
            _node_of(name): Stored(stored.record, stored.revision)
            for name, stored in found
            if stored is not None and isinstance(stored.record, Attestation)
        }

    def votes(self, round_: Round) -> dict[str, Attestation]:
        """What the round's nodes have attested for its present attempt."""
        found = self.attested(round_.dataset, round_.id)
        return {
            node: found[node].record
            for node in round_.nodes
            if node in found and found[node].record.attempt == round_.attempt
        }


@dataclass(frozen=True)
class FreshRead(Generic[R]):
    """What the nodes of one round say, `by` node; `garbled`: the revisions of what cannot be read, by key."""

    by: dict[str, Stored[R]]
    garbled: dict[str, int]


async def read_fresh(store: Store, keys_of: Mapping[str, str], kind: type[R]) -> FreshRead[R]:
    """Reads from the store itself, for what rests on somebody's silence. `keys_of`: node → its key."""
    peers = PeerRecordStore(store)
    found = await asyncio.gather(*(peers.get(key.removeprefix(peers.prefix)) for key in keys_of.values()))
    anew: FreshRead[R] = FreshRead({}, {})
    for (node, key), stored in zip(keys_of.items(), found, strict=True):
        if stored is not None and isinstance(stored.record, kind):
            anew.by[node] = Stored(stored.record, stored.revision)
        elif stored is not None:
            anew.garbled[key] = stored.revision
    return anew


def _node_of(name: str) -> str:
    return keys.split_peer(keys.all_peers() + name)[0]


class Voters:
    """As this node last saw them, also while the federation is away. `members` has to run beside this."""

    def __init__(
        self,
        federation: Store,
        heard: PeerRecords,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        identities = Records(federation, keys.identities_prefix(), Identity, unreadable)
        self.members: Mirror[Identity] = Mirror(identities, conditions=conditions)
        self.heard = heard
        self._store = federation

    async def known(self) -> None:
        """Returns when `seen` has an answer."""
        await self.members.synced.wait()
        await self.heard.mirror.synced.wait()

    def seen(self, dataset: str) -> list[str] | None:
        """The nodes, sorted; None while it was not listed yet who takes part."""
        if not (self.members.synced.is_set() and self.heard.mirror.synced.is_set()):
            return None
        identities = {name: stored.record for name, stored in self.members.items()}
        return eligible_voters(self.heard.parts(dataset), identities)

    async def ask(self, dataset: str) -> list[str]:
        """The same, read now, or from the copies while the federation is away. Raises Unavailable."""
        identities = await self.members.records.by_name()
        if identities:
            found = await asyncio.gather(
                *(self._store.get(keys.part(node, dataset)) for node in sorted(identities))
            )
        else:
            found = [*(await self._store.list(keys.all_peers())).entries]
        return eligible_voters(_declaring(found, dataset), identities)


def eligible_voters(declaring: Iterable[str], identities: Mapping[str, Identity]) -> list[str]:
    """Pure. A store without identities has no members to tell from others: a node alone, or a plain etcd."""
    joined = {node for node, each in identities.items() if each.node == node and each.state == "joined"}
    return sorted(node for node in set(declaring) if node in joined or not identities)


def _declaring(entries: Sequence[Entry | None], dataset: str) -> list[str]:
    places = [
        participation_of(each.key.removeprefix(keys.all_peers()))
        for each in entries
        if each is not None and parse_participation(each) is not None
    ]
    return [place[1] for place in places if place is not None and place[0] == dataset]
