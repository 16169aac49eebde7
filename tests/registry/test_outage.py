"""When a store does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import httpx
import pytest

from mao_registry.records import Shelf
from mao_registry.registry import build
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.errors import StoreUnknown
from mao_shared.federation.copies import Copies
from mao_shared.models import Link, Tool
from mao_shared.store import Check, Store, Write
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import NODE, serving
from tests.registry.doubles import WillingPeers, away_store
from tests.registry.seed import INIT, TOOL, enrol
from tests.support.stores import AwayStore
from tests.support.waiting import eventually_answers

FEDERATED = ["/registry/tools", "/registry/tools/crawler", "/registry/nodes", "/pipeline"]


async def test_without_the_federation_the_enrolments_still_answer(memory: MemoryStore) -> None:
    async with serving(memory, WillingPeers()) as api:
        await enrol(api)
    async with serving(memory, WillingPeers(), federation=away_store()) as api:
        for path in FEDERATED:
            answer = await api.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "federation-unavailable"), path
            assert answer.headers["retry-after"]
        for path, body in (("/registry/tools", TOOL), ("/pipeline/init", INIT)):
            assert (await api.post(path, json=body)).json()["code"] == "federation-unavailable"
        assert [item["pipeline"] for item in (await api.get("/enrolments")).json()["items"]] == ["crawler"]
        assert (await api.get("/enrolments/crawler")).status_code == 200
        ready = await api.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"store": "ok"}), "it does its work"


async def test_while_the_federation_is_away_the_last_known_is_told_with_its_age(memory: MemoryStore) -> None:
    federation = AwayStore()
    async with serving(memory, WillingPeers(), federation=federation) as api:
        await enrol(api)
        fresh = await api.get("/registry/tools/crawler")
        assert "x-mao-as-of" not in fresh.headers
        await _copied(memory, "tools", "crawler")

        federation.away = True
        for path in FEDERATED:
            answer = await api.get(path)
            assert answer.status_code == 200, path
            assert int(answer.headers["age"]) < 10
            assert answer.headers["warning"].startswith("110 ")
            assert answer.headers["x-mao-as-of"].endswith("+00:00")
        stale = await api.get("/registry/tools/crawler")
        assert (stale.json(), stale.headers["etag"]) == (fresh.json(), fresh.headers["etag"])
        refused = await api.post("/registry/tools", json=TOOL | {"name": "other"})
        assert (refused.status_code, refused.json()["code"]) == (503, "federation-unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert (await api.get("/readyz")).status_code == 200

        await MemoryStore.delete(federation, keys.registry("tools", "crawler"))
        federation.away = False
        await _tells(api, "/registry/tools/crawler", 404)
        assert (await api.post("/registry/tools", json=TOOL | {"name": "other"})).status_code == 201


async def test_a_node_joins_and_leaves_while_its_registry_serves(memory: MemoryStore) -> None:
    """By a link whose certificate is not there: what it must not do is go on with its own store."""
    async with serving(memory, WillingPeers()) as api:
        assert (await api.post("/registry/tools", json=TOOL)).status_code == 201
        link = Link(
            federation="alps",
            id="1",
            node=NODE,
            user="n@1",
            endpoints=["127.0.0.1:1"],
            joined_at=SystemClock().now(),
        )
        await memory.create(keys.link(NODE), dump(link))
        await _tells(api, "/registry/tools/crawler", 503)
        answer = await api.post("/registry/tools", json=TOOL | {"name": "other"})
        assert (answer.status_code, answer.json()["code"]) == (503, "federation-unavailable")
        await memory.delete(keys.link(NODE))
        await _tells(api, "/registry/tools/crawler", 200)
        assert await memory.get(keys.registry("tools", "other")) is None


async def _copied(own: Store, kind: keys.RegistryKind, name: str) -> None:
    """Returns when the registry has this record among its copies, and has vouched for them."""

    async def vouched() -> bool:
        contact = await Copies(own, NODE).contact("fixed")
        copy = await own.get(keys.known_prefix(NODE) + keys.registry(kind, name))
        return contact is not None and copy is not None

    await eventually_answers(vouched)


async def _tells(api: httpx.AsyncClient, path: str, status: int) -> None:
    """Returns when the path answers with this status, and not from copies."""

    async def told() -> bool:
        answer = await api.get(path)
        return answer.status_code == status and "x-mao-as-of" not in answer.headers

    await eventually_answers(told)


async def test_with_etcd_down_all_is_unavailable() -> None:
    async with serving(away_store(), WillingPeers()) as api:
        for path in [*FEDERATED, "/enrolments", "/enrolments/crawler"]:
            assert (await api.get(path)).json()["code"] == "store-unavailable", path
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/readyz")).status_code == 503


class ForgetfulStore:
    """The answer to a transaction never arrives; `applied` says whether it was made."""

    def __init__(self, inner: Store, *, applied: bool) -> None:
        self._inner = inner
        self._applied = applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if self._applied:
            await self._inner.transact(checks, writes)
        raise StoreUnknown("No answer in time.", next="Read again.")


async def test_a_write_without_an_answer_is_looked_up(memory: MemoryStore) -> None:
    forgetful = cast(Store, ForgetfulStore(memory, applied=True))
    registry = build(Shelf("n", forgetful, forgetful), WillingPeers(), SystemClock())
    made = await registry.tools.create(Tool.model_validate(TOOL))
    assert made.revision == memory.revision
    await registry.tools.delete("crawler", made.revision)
    assert await registry.shelf.tools.get("crawler") is None


async def test_a_write_that_was_not_made_stays_unknown(memory: MemoryStore) -> None:
    forgetful = cast(Store, ForgetfulStore(memory, applied=False))
    registry = build(Shelf("n", forgetful, forgetful), WillingPeers(), SystemClock())
    with pytest.raises(StoreUnknown):
        await registry.tools.create(Tool.model_validate(TOOL))
