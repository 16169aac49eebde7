"""Endorsements: digests of shared records, under a prefix that only the endorsing node can write.

Any member may write the records themselves, so the author named in a record proves nothing. An endorsement
proves that the node's registry, on its operator's command, has written exactly this content.
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
from mao_shared.store import Put, Store
from mao_shared.store.records import dump

_KINDS: dict[type[Named], RegistryKind] = {Tool: "tools", Dataset: "datasets", Pipeline: "pipelines"}
_NOT_ENDORSED = {"nodes"}  # every node that enrols adds itself
_MAX_BYTES = 10_000  # larger endorsements are ignored


def registry_kind(record: Named) -> RegistryKind:
    return _KINDS[type(record)]


def record_label(record: Named) -> str:
    """Return `kind/name`, the record's label in enrolments and diffs."""
    return f"{registry_kind(record)}/{record.name}"


def record_digest(record: Named) -> str:
    """Return the SHA-256 of a record's content; versions of MAO with the same fields get the same one."""
    content = record.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_ENDORSED)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Endorser:
    """Creates this node's endorsements, which are written in the same transaction as the record."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock

    def put(self, record: Named) -> Put:
        endorsement = Endorsement(digest=record_digest(record), endorsed_at=self._clock.now())
        return Put(keys.endorsement(self._node, registry_kind(record), record.name), dump(endorsement))


async def endorsers(store: Store, records: Mapping[str, str], nodes: Iterable[str]) -> dict[str, list[str]]:
    """Return record → those of `nodes` that endorse its digest. `records`: `kind/name` → digest."""
    return {
        label: [node for node in sorted(nodes) if await _endorsed_digest(store, node, label) == digest]
        for label, digest in records.items()
    }


async def _endorsed_digest(store: Store, node: str, label: str) -> str | None:
    """Return the digest that a node endorses; None without a readable endorsement."""
    entry = await store.get(f"{keys.peer_root(node)}endorsements/{label}")
    if entry is None or len(entry.value) > _MAX_BYTES:
        return None
    try:
        return Endorsement.model_validate_json(entry.value, context=STORED).digest
    except ValidationError:
        return None
