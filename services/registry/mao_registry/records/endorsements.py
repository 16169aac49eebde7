"""Who stands for a shared record: nodes put its digest under their own prefix, where nobody else can write.

Records themselves are shared: any member may write them. What a record says of its author is therefore worth
nothing; what counts is that the node's own registry, asked by its operator, wrote this very content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Endorsement, Named, Pipeline, Tool
from mao_shared.models.common import STORED
from mao_shared.store import Delete, Put, Store
from mao_shared.store.records import dump

_KINDS: dict[type[Named], RegistryKind] = {Tool: "tools", Dataset: "datasets", Pipeline: "pipelines"}
_CHANGES_BY_ITSELF = {"nodes"}  # every node that enrols puts itself there
_LARGEST = 10_000  # bytes of an endorsement; more is nothing that we have written


def kind_of(record: Named) -> RegistryKind:
    return _KINDS[type(record)]


def label_of(record: Named) -> str:
    """`kind/name`: how an enrolment and a diff name the record."""
    return f"{kind_of(record)}/{record.name}"


def digest_of(record: Named) -> str:
    """SHA-256 of what a record says, the same for every version of MAO that knows its fields."""
    said = record.model_dump(mode="json", exclude_defaults=True, exclude=_CHANGES_BY_ITSELF)
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Endorser:
    """This node's endorsements, as writes for the transaction that writes (or deletes) the record."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock

    def put(self, record: Named) -> Put:
        made = Endorsement(digest=digest_of(record), endorsed_at=self._clock.now())
        return Put(keys.endorsement(self._node, kind_of(record), record.name), dump(made))

    def delete(self, kind: RegistryKind, name: str) -> Delete:
        return Delete(keys.endorsement(self._node, kind, name))


async def endorsers(store: Store, records: Mapping[str, str], nodes: Iterable[str]) -> dict[str, list[str]]:
    """Of `nodes`, those that stand for each of `records` (`kind/name` → digest) as it is."""
    return {
        label: [node for node in sorted(nodes) if await _endorsed(store, node, label) == digest]
        for label, digest in records.items()
    }


async def _endorsed(store: Store, node: str, label: str) -> str | None:
    """The digest that a node stands for; None when there is none, or nothing that can be read."""
    entry = await store.get(f"{keys.peer_root(node)}endorsements/{label}")
    if entry is None or len(entry.value) > _LARGEST:
        return None
    try:
        return Endorsement.model_validate_json(entry.value, context=STORED).digest
    except ValidationError:
        return None
