"""What nodes have said of rounds, each under its own prefix of the federation's store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.models import Announcement, Attestation, Part, Record, Round, round_id
from mao_shared.models.common import STORED
from mao_shared.reconcile import Mirror
from mao_shared.store import Entry, Records, Store, Stored, Unreadable
from mao_shared.store.unreadable import way_out, why_unreadable

R = TypeVar("R", Announcement, Attestation)
MOST_WORDS = 8  # commits that are remembered of one node and round: two are too many already
Said = Mapping[str, Stored[Announcement]]  # node → its announcement
_KINDS: dict[str, type[Announcement] | type[Attestation]] = {
    "announcements": Announcement,
    "attestations": Attestation,
}
_PARTS = "parts"


class _Aside(Record):
    """Stands for what lies there and is not about rounds."""


class Garbled(Record):
    """Stands for what lies where a node's word on a round belongs and is none: it says nothing."""


class PeerRecords(Records[Record]):
    """All that nodes say under their prefixes; only what is about rounds is read, and never fails to be."""

    def __init__(self, store: Store, unreadable: Unreadable | None = None) -> None:
        super().__init__(store, keys.all_peers(), Record, unreadable)

    def parse(self, entry: Entry) -> Stored[Record]:
        _, parts = keys.split_peer(entry.key)
        if len(parts) == 2 and parts[0] == _PARTS:
            part = read_part(entry)
            if part is None:
                self._tell(entry, "it is no part in its dataset")
                return Stored(_Aside(), entry.revision)
            self.gone(entry.key)
            return Stored(part, entry.revision)
        model = _KINDS.get(parts[0]) if len(parts) == 3 else None
        if model is None:
            return Stored(_Aside(), entry.revision)
        try:
            record = model.model_validate_json(entry.value, context=STORED)
        except Exception as error:  # noqa: BLE001 (a member's word, which may be anything)
            self._tell(entry, why_unreadable(error, entry.value))
            return Stored(Garbled(), entry.revision)
        if [record.dataset, record.round] != parts[1:] or not _names_its_tick(record):
            self._tell(entry, "it is about another round than its key says")
            return Stored(Garbled(), entry.revision)
        self.gone(entry.key)
        return Stored(record, entry.revision)

    def _tell(self, entry: Entry, why: str) -> None:
        """Shown as long as it lies there; what it is taken for is said by `parse`."""

        def again(now: Entry) -> None:
            if now.value == entry.value:
                raise RecordUnreadable.of(entry.key, why, way_out(entry.key))

        self.unreadable.note(self.store, again, RecordUnreadable.of(entry.key, why, way_out(entry.key)))


def read_part(entry: Entry) -> Part | None:
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
    return isinstance(record, (Announcement, Attestation, Garbled, Part))


def place_of(name: str) -> tuple[str, str] | None:
    """Dataset and round that a record of the peers' mirror is about; None for other things."""
    _, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] in _KINDS else None


def part_of(name: str) -> tuple[str, str] | None:
    """Dataset and node of a part in the peers' mirror; None for other things."""
    node, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], node) if len(parts) == 2 and parts[0] == _PARTS else None


def dataset_of(name: str) -> str | None:
    """Of anything in the peers' mirror."""
    place = place_of(name) or part_of(name)
    return None if place is None else place[0]


class Heard:
    """The peers' mirror by dataset, round and node; and what nodes were ever heard to announce."""

    def __init__(
        self, store: Store, unreadable: Unreadable | None = None, conditions: Conditions | None = None
    ) -> None:
        self.mirror: Mirror[Record] = Mirror(
            PeerRecords(store, unreadable), keep=is_about_rounds, conditions=conditions
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
        if (part := part_of(name)) is not None:
            self._take_part(*part, there=stored is not None)
        place = place_of(name)
        if place is None:
            return
        self._garbled.discard(name)
        if stored is None or isinstance(stored.record, Garbled):
            self._forget(place, name)
            self._garbled |= set() if stored is None else {name}
            return
        dataset, round_id = place
        self._names.setdefault(dataset, {}).setdefault(round_id, set()).add(name)
        if isinstance(stored.record, Announcement) and stored.record.commit is not None:
            words = self._before[place][_node(name)]
            if len(words) < MOST_WORDS:
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
        found = ((name, place_of(name), self.mirror.get(name)) for name in self._garbled)
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
            _node(name): Stored(stored.record, stored.revision)
            for name, stored in found
            if stored is not None and isinstance(stored.record, Announcement)
        }

    def attested(self, dataset: str, round_id: str) -> dict[str, Stored[Attestation]]:
        found = ((name, self.mirror.get(name)) for name in self._of(dataset, round_id))
        return {
            _node(name): Stored(stored.record, stored.revision)
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
class Anew(Generic[R]):
    """What the nodes of one round say, `by` node; `garbled`: the revisions of what cannot be read, by key."""

    by: dict[str, Stored[R]]
    garbled: dict[str, int]


async def read_anew(store: Store, keys_of: Mapping[str, str], kind: type[R]) -> Anew[R]:
    """Reads from the store itself, for what rests on somebody's silence. `keys_of`: node → its key."""
    peers = PeerRecords(store)
    found = await asyncio.gather(*(peers.get(key.removeprefix(peers.prefix)) for key in keys_of.values()))
    anew: Anew[R] = Anew({}, {})
    for (node, key), stored in zip(keys_of.items(), found, strict=True):
        if stored is not None and isinstance(stored.record, kind):
            anew.by[node] = Stored(stored.record, stored.revision)
        elif stored is not None:
            anew.garbled[key] = stored.revision
    return anew


def _node(name: str) -> str:
    return keys.split_peer(keys.all_peers() + name)[0]
