"""Outages of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from mao_registry.records.stores import Repositories
from mao_registry.registry import Registry, build
from mao_shared.clock import SystemClock
from mao_shared.errors import StoreUnknown
from mao_shared.models import Tool
from mao_shared.store import Check, Store, Write
from mao_shared.store.memory import MemoryStore

from .conftest import serving
from .doubles import RememberedAgreements, WillingServices, away_store
from .seed import INIT, TOOL, enrol

FEDERATED = ["/registry/tools", "/registry/tools/crawler", "/registry/nodes", "/pipeline"]


async def test_enrolments_answer_without_federation(memory: MemoryStore) -> None:
    async with serving(memory, WillingServices()) as api:
        await enrol(api)
    async with serving(memory, WillingServices(), federation=away_store()) as api:
        for path in FEDERATED:
            answer = await api.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "federation-unavailable"), path
            assert answer.headers["retry-after"]
        for path, body in (("/registry/tools", TOOL), ("/pipeline/init", INIT)):
            assert (await api.post(path, json=body)).json()["code"] == "federation-unavailable"
        assert [item["pipeline"] for item in (await api.get("/enrolments")).json()["items"]] == ["crawler"]
        assert (await api.get("/enrolments/crawler")).status_code == 200
        ready = await api.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["store"]) == (200, "ok")


async def test_all_calls_unavailable_without_etcd() -> None:
    async with serving(away_store(), WillingServices()) as api:
        for path in [*FEDERATED, "/enrolments", "/enrolments/crawler"]:
            assert (await api.get(path)).json()["code"] == "store-unavailable", path
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/readyz")).status_code == 503


class ForgetfulStore:
    """A store that loses the answer to a transaction, which is applied if `applied`."""

    def __init__(self, inner: Store, *, applied: bool) -> None:
        self._inner = inner
        self._applied = applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if self._applied:
            await self._inner.transact(checks, writes)
        raise StoreUnknown("No answer in time.", next="Read again.")


def _registry(store: Store) -> Registry:
    repositories = Repositories("n", store, store)
    return build(repositories, WillingServices(), SystemClock(), RememberedAgreements(repositories))


async def test_unknown_write_is_read_back(memory: MemoryStore) -> None:
    forgetful = cast(Store, ForgetfulStore(memory, applied=True))
    registry = _registry(forgetful)
    made = await registry.tools.create(Tool.model_validate(TOOL))
    assert made.revision == memory.revision
    await registry.tools.delete("crawler", made.revision)
    assert await registry.repositories.tools.get("crawler") is None


async def test_unknown_write_not_made_stays_unknown(memory: MemoryStore) -> None:
    forgetful = cast(Store, ForgetfulStore(memory, applied=False))
    registry = _registry(forgetful)
    with pytest.raises(StoreUnknown):
        await registry.tools.create(Tool.model_validate(TOOL))
