"""Only the node itself can write under its prefix: a real etcd with its users and roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from mao_registry.records.endorsements import record_digest
from mao_shared import keys
from mao_shared.errors import Forbidden
from mao_shared.models import Endorsement, Tool
from mao_shared.store import Put, Store, open_store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import running
from tests.registry.doubles import WillingServices
from tests.registry.seed import INIT, TOOL, register
from tests.support.federation_etcd import FederationEtcd, federation_etcd

pytestmark = pytest.mark.etcd
EVIL = Tool(**{**TOOL, "image": "evil:1", "author": "node-2"})


@asynccontextmanager
async def member(federation: FederationEtcd, node: str) -> AsyncIterator[Store]:
    """Open the federation's store with the node's certificate."""
    store = open_store(federation.endpoints, tls=await federation.join(node))
    try:
        yield store
    finally:
        await store.close()


def forged() -> bytes:
    return dump(Endorsement(digest=record_digest(EVIL), endorsed_at=datetime(2026, 1, 1, tzinfo=UTC)))


async def test_endorsement_needs_own_node() -> None:
    with federation_etcd() as federation:
        async with (
            member(federation, "node-1") as shared,
            member(federation, "node-2") as theirs,
            member(federation, "node-3") as evil,
            running(MemoryStore(), WillingServices(), federation=shared) as (own, registry),
            running(MemoryStore(), WillingServices(), node="node-2", federation=theirs) as (other, _),
        ):
            await register(own)
            assert (await own.post("/pipeline/init", json=INIT)).status_code == 201
            await own.put("/trusted/node-2")

            there = await evil.get(keys.registry("tools", "crawler"))
            assert there is not None
            endorsement = Put(keys.endorsement("node-2", "tools", "crawler"), forged())
            with pytest.raises(Forbidden):
                await evil.transact([], [Put(there.key, dump(EVIL)), endorsement])
            for key in (
                endorsement.key,
                keys.peer_runs("node-2", "crawler"),
                keys.peer_node("node-2"),
                keys.answer("node-2", "x"),
                keys.ask("node-2", "x"),
                keys.member("node-2"),
            ):
                with pytest.raises(Forbidden):
                    await evil.create(key, forged())

            await evil.replace(there.key, dump(EVIL), there.revision)  # the record itself anybody may write
            await registry.trust.reconcile()
            steps = (await own.get("/enrolments/crawler")).json()["steps"]
            assert steps[0]["image"]["name"] == TOOL["image"]
            diff = (await own.get("/pipeline/crawler/diff")).json()
            assert diff["endorsed"] == {"tools/crawler": []}

            honest = await other.put("/registry/tools/crawler", json={**TOOL, "image": "crawler:2"})
            assert honest.status_code == 200, honest.text
            await registry.trust.reconcile()
            enrolment = (await own.get("/enrolments/crawler")).json()
            assert enrolment["steps"][0]["image"]["name"] == "crawler:2"
            assert enrolment["approved_by"] == "trusted:node-2"
