"""Peer records, which nodes write about rounds under their own prefixes of the federation store; and voters.

The voters of a dataset are the members that publish that they take part in it. No node can do so for another:
a node's participation is under its own prefix, and only core nodes can write the list of members. The
dataset's record has no influence, since any member can write it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.models import Announcement, Attestation, Identity, Participation, Record, Round, round_id
from mao_shared.models.common import STORED
from mao_shared.reconcile import Mirror
from mao_shared.store import Entry, Records, Store, Stored, Unreadable
from mao_shared.store.unreadable import recovery_step, why_unreadable

R = TypeVar("R", Announcement, Attestation)
MAX_REMEMBERED_COMMITS = 8  # of one node and round; a second one is already a violation
AnnouncementsByNode = Mapping[str, Stored[Announcement]]  # node → its announcement
_KINDS: dict[str, type[Announcement] | type[Attestation]] = {
    "announcements": Announcement,
    "attestations": Attestation,
}
_PARTS = "parts"


class _OtherRecord(Record):
    """Placeholder for a record that is not about rounds."""


class UnreadablePeerRecord(Record):
    """Placeholder for a record under the key of an announcement or attestation that is not one."""


class PeerRecordStore(Records[Record]):
    """All records under the nodes' prefixes. Records about rounds are parsed, which never fails."""

    def __init__(self, store: Store, unreadable: Unreadable | None = None) -> None:
        super().__init__(store, keys.all_peers(), Record, unreadable)

    def parse(self, entry: Entry) -> Stored[Record]:
        _, parts = keys.split_peer(entry.key)
        if len(parts) == 2 and parts[0] == _PARTS:
            participation = parse_participation(entry)
            if participation is None:
                self._report(entry, "it is not a participation in the dataset that its key names")
                return Stored(_OtherRecord(), entry.revision)
            self.note_absent(entry.key)
            return Stored(participation, entry.revision)
        model = _KINDS.get(parts[0]) if len(parts) == 3 else None
        if model is None:
            return Stored(_OtherRecord(), entry.revision)
        try:
            record = model.model_validate_json(entry.value, context=STORED)
        except Exception as error:  # noqa: BLE001 (written by a member, so it may be anything)
            self._report(entry, why_unreadable(error, entry.value))
            return Stored(UnreadablePeerRecord(), entry.revision)
        # otherwise an announcement could open the round of another tick
        has_matching_round = isinstance(record, Attestation) or (
            record.round == round_id(record.tick, record.pipeline, record.step)
        )
        if [record.dataset, record.round] != parts[1:] or not has_matching_round:
            self._report(entry, "it is about another round than its key says")
            return Stored(UnreadablePeerRecord(), entry.revision)
        self.note_absent(entry.key)
        return Stored(record, entry.revision)

    def _report(self, entry: Entry, reason: str) -> None:
        """Report an unreadable record as a condition until it is replaced."""

        def check_again(now: Entry) -> None:
            if now.value == entry.value:
                raise RecordUnreadable.of(entry.key, reason, recovery_step(entry.key))

        self.unreadable.note(
            self.store, check_again, RecordUnreadable.of(entry.key, reason, recovery_step(entry.key))
        )


def parse_participation(entry: Entry) -> Participation | None:
    """Parse a participation; None if it is unreadable or names a dataset other than its key."""
    try:
        participation = Participation.model_validate_json(entry.value, context=STORED)
    except Exception:  # noqa: BLE001 (written by a member, so it may be anything)
        return None
    return participation if participation.dataset == keys.last_part(entry.key) else None


def is_about_rounds(record: Record) -> bool:
    return isinstance(record, (Announcement, Attestation, UnreadablePeerRecord, Participation))


def round_named_by(name: str) -> tuple[str, str] | None:
    """Return the dataset and round of an announcement or attestation; None for other records."""
    _, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] in _KINDS else None


def participation_names(name: str) -> tuple[str, str] | None:
    """Return the dataset and node of a participation; None for other records."""
    node, parts = keys.split_peer(keys.all_peers() + name)
    return (parts[1], node) if len(parts) == 2 and parts[0] == _PARTS else None


def dataset_named_by(name: str) -> str | None:
    """Return the dataset of a record about rounds; None for other records."""
    round_name = round_named_by(name) or participation_names(name)
    return None if round_name is None else round_name[0]


class PeerRecords:
    """The mirror of peer records by dataset, round and node, and all commits that nodes ever announced."""

    def __init__(
        self, store: Store, unreadable: Unreadable | None = None, conditions: Conditions | None = None
    ) -> None:
        self.mirror: Mirror[Record] = Mirror(
            PeerRecordStore(store, unreadable), keep=is_about_rounds, conditions=conditions
        )
        self._names: dict[str, dict[str, set[str]]] = {}  # dataset → round → names in the mirror
        self._commits: defaultdict[tuple[str, str], defaultdict[str, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )
        self._participants: dict[str, set[str]] = {}  # dataset → nodes
        self._unreadable: set[str] = set()
        self.mirror.subscribe(self._changed)

    def _changed(self, name: str) -> None:
        stored = self.mirror.get(name)
        if (participation := participation_names(name)) is not None:
            dataset, node = participation
            nodes = self._participants.setdefault(dataset, set())
            if stored is not None:
                nodes.add(node)
            else:
                nodes.discard(node)
            if not nodes:
                del self._participants[dataset]
        round_name = round_named_by(name)
        if round_name is None:
            return
        self._unreadable.discard(name)
        if stored is None or isinstance(stored.record, UnreadablePeerRecord):
            self._forget(round_name, name)
            self._unreadable |= set() if stored is None else {name}
            return
        dataset, round_id = round_name
        self._names.setdefault(dataset, {}).setdefault(round_id, set()).add(name)
        if isinstance(stored.record, Announcement) and stored.record.commit is not None:
            commits = self._commits[round_name][_node_in_key(name)]
            if len(commits) < MAX_REMEMBERED_COMMITS:
                commits.add(stored.record.commit)

    def _forget(self, round_name: tuple[str, str], name: str) -> None:
        dataset, round_id = round_name
        rounds = self._names.get(dataset, {})
        names = rounds.get(round_id, set())
        names.discard(name)
        if not names:
            rounds.pop(round_id, None)
            self._commits.pop(round_name, None)
        if not rounds:
            self._names.pop(dataset, None)

    def participants(self, dataset: str) -> set[str]:
        """Return the nodes that publish that they take part in a dataset, members or not."""
        return set(self._participants.get(dataset, ()))

    def participations(self, node: str) -> set[str]:
        """Return the datasets in which a node publishes that it takes part."""
        return {dataset for dataset, nodes in self._participants.items() if node in nodes}

    def unreadable(self, dataset: str) -> dict[str, int]:
        """Return the revisions by key of the unreadable peer records about the dataset's rounds."""
        found = ((name, round_named_by(name), self.mirror.get(name)) for name in self._unreadable)
        return {
            keys.all_peers() + name: stored.revision
            for name, round_name, stored in found
            if stored is not None and round_name is not None and round_name[0] == dataset
        }

    def announced_commits(self, dataset: str, round_id: str) -> dict[str, set[str]]:
        """Return by node all commits that this node saw it announce for the round."""
        return dict(self._commits.get((dataset, round_id), {}))

    def round_ids(self, dataset: str) -> list[str]:
        """Return the ids of the rounds about which any node has written."""
        return list(self._names.get(dataset, {}))

    def mentions(self, name: str) -> bool:
        """True if any record is about the round `<dataset>/<id>`."""
        dataset, _, round_id = name.partition("/")
        return bool(self._names.get(dataset, {}).get(round_id))

    def datasets(self) -> set[str]:
        return set(self._names)

    def announced(self, dataset: str, round_id: str) -> dict[str, Stored[Announcement]]:
        """Return the announcements for a round by node."""
        return self._of_kind(Announcement, dataset, round_id)

    def attested(self, dataset: str, round_id: str) -> dict[str, Stored[Attestation]]:
        """Return the attestations of a round by node, of any attempt."""
        return self._of_kind(Attestation, dataset, round_id)

    def _of_kind(self, kind: type[R], dataset: str, round_id: str) -> dict[str, Stored[R]]:
        names = self._names.get(dataset, {}).get(round_id, set())
        found = ((name, self.mirror.get(name)) for name in names)
        return {
            _node_in_key(name): Stored(stored.record, stored.revision)
            for name, stored in found
            if stored is not None and isinstance(stored.record, kind)
        }

    def attestations(self, round_: Round) -> dict[str, Attestation]:
        """Return the attestations of the round's nodes for its current attempt."""
        return current_attestations(round_, self.attested(round_.dataset, round_.id))


def current_attestations(round_: Round, found: Mapping[str, Stored[Attestation]]) -> dict[str, Attestation]:
    """Return the attestations of the round's nodes for its current attempt."""
    return {
        node: found[node].record
        for node in round_.nodes
        if node in found and found[node].record.attempt == round_.attempt
    }


@dataclass(frozen=True)
class FreshRead(Generic[R]):
    """Peer records of one round `by` node, and the revisions by key of the `unreadable` ones."""

    by: dict[str, Stored[R]]
    unreadable: dict[str, int]


async def read_fresh(store: Store, keys_of: Mapping[str, str], kind: type[R]) -> FreshRead[R]:
    """Read peer records from the store instead of the mirror, for decisions that rely on a node's silence.

    `keys_of` maps each node to its key. Raises Unavailable.
    """
    peers = PeerRecordStore(store)
    found = await asyncio.gather(*(peers.get(key.removeprefix(peers.prefix)) for key in keys_of.values()))
    fresh: FreshRead[R] = FreshRead({}, {})
    for (node, key), stored in zip(keys_of.items(), found, strict=True):
        if stored is not None and isinstance(stored.record, kind):
            fresh.by[node] = Stored(stored.record, stored.revision)
        elif stored is not None:
            fresh.unreadable[key] = stored.revision
    return fresh


def _node_in_key(name: str) -> str:
    return keys.split_peer(keys.all_peers() + name)[0]


class Voters:
    """The voters of datasets as this node last saw them, also while the federation store is unavailable.

    `members` and the mirror of `peer_records` must be running.
    """

    def __init__(
        self,
        federation: Store,
        peers: PeerRecords,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        identities = Records(federation, keys.identities_prefix(), Identity, unreadable)
        self.members: Mirror[Identity] = Mirror(identities, conditions=conditions)
        self.peer_records = peers
        self._store = federation

    async def wait_synced(self) -> None:
        """Wait until `cached` returns the voters."""
        await self.members.synced.wait()
        await self.peer_records.mirror.synced.wait()

    def cached(self, dataset: str) -> list[str] | None:
        """Return the voters, sorted; None until the first listing is complete."""
        if not (self.members.synced.is_set() and self.peer_records.mirror.synced.is_set()):
            return None
        identities = {name: stored.record for name, stored in self.members.items()}
        return eligible_voters(self.peer_records.participants(dataset), identities)

    async def fetch(self, dataset: str) -> list[str]:
        """Read the voters from the store, or from its replica while it is unavailable. Raises Unavailable."""
        identities = await self.members.records.by_name()
        if identities:
            found = await asyncio.gather(
                *(self._store.get(keys.part(node, dataset)) for node in sorted(identities))
            )
        else:
            found = [*(await self._store.list(keys.all_peers())).entries]
        return eligible_voters(_participants(found, dataset), identities)


def eligible_voters(participants: Iterable[str], identities: Mapping[str, Identity]) -> list[str]:
    """Return the participants that are members, sorted. Pure.

    Without identities (a node alone, or plain etcd) all participants are members.
    """
    own = ((node, identity) for node, identity in identities.items() if identity.node == node)
    joined = {node for node, identity in own if identity.state == "joined"}
    return sorted(node for node in set(participants) if node in joined or not identities)


def _participants(entries: Sequence[Entry | None], dataset: str) -> Iterator[str]:
    for entry in entries:
        if entry is not None and parse_participation(entry) is not None:
            round_name = participation_names(entry.key.removeprefix(keys.all_peers()))
            if round_name is not None and round_name[0] == dataset:
                yield round_name[1]
