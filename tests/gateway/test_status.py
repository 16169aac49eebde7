"""The federation in `GET /status`, and the monitoring of the services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mao_gateway.status import describe_federation, federation_status, federation_step, watch_services
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import PeerUnavailable
from mao_shared.models.federation import Contact, Link
from mao_shared.reconcile import background
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.waiting import eventually

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LINK = Link(federation="lab", id="f-1", node="n", user="n@1", endpoints=["h:1"], joined_at=NOW)
AWAY = Contact(federation="f-1", away_since=NOW, reason="No answer.", as_of=NOW)


async def test_federation_status_none_without_federation() -> None:
    assert await federation_status(MemoryStore(), "n", 1) is None


async def test_federation_status_since_and_reason() -> None:
    store = MemoryStore()
    await store.create(keys.link("n"), dump(LINK))
    await store.create(keys.contact("n"), dump(AWAY))
    status = await federation_status(store, "n", 1)
    assert status is not None
    assert (status.name, status.reachable, status.since, status.reason) == ("lab", False, NOW, "No answer.")


def test_federation_status_since_last_answer() -> None:
    status = describe_federation(LINK, AWAY.model_copy(update={"away_since": NOW + timedelta(seconds=27)}))
    assert status is not None
    assert status.since == NOW


def test_federation_status_next_step_keeps_ready() -> None:
    told = describe_federation(LINK, AWAY.model_copy(update={"next": "Start node-2."}))
    assert federation_step(told) == ["The federation lab does not answer. Start node-2."]
    removed = AWAY.model_copy(update={"removed": True, "reason": "Removed from 'lab'.", "next": "Leave."})
    assert federation_step(describe_federation(LINK, removed)) == ["Removed from 'lab'. Leave."]
    assert federation_step(describe_federation(LINK, AWAY.model_copy(update={"reachable": True}))) == []


async def test_federation_status_ignores_unreadable_record() -> None:
    store = MemoryStore()
    await store.create(keys.contact("n"), b"{}")
    assert await federation_status(store, "n", 1) is None


def test_federation_status_ignores_other_federation() -> None:
    status = describe_federation(LINK, AWAY.model_copy(update={"federation": "f-0"}))
    assert status is not None
    assert (status.name, status.reachable) == ("lab", None)


def test_federation_status_plain_address() -> None:
    status = describe_federation(None, AWAY.model_copy(update={"federation": "h:1", "reachable": True}))
    assert status is not None
    assert (status.name, status.reachable) == ("h:1", True)


class Services:
    """Fake services by name: an answer, or the exception to raise."""

    def __init__(self, **answers: Exception | None) -> None:
        self.answers = answers

    async def get_json(self, service: str, *_: Any) -> tuple[int, Any]:
        if (error := self.answers[service]) is not None:
            raise error
        return 200, {}


@pytest.mark.parametrize("odd", [KeyError("status"), ValueError("no JSON"), RecursionError()])
async def test_watch_services_isolates_unexpected_answer(
    monkeypatch: pytest.MonkeyPatch, odd: Exception
) -> None:
    monkeypatch.setattr("mao_gateway.status.WATCH_PERIOD", 0.01)
    services = Services(registry=odd, runner=PeerUnavailable("The runner does not answer."), datamgmt=None)
    conditions = Conditions()

    def told() -> set[tuple[str, str]]:
        return {(condition.name, condition.subject) for condition in conditions.current()}

    names = ("registry", "runner", "datamgmt")
    async with background(watch_services(services, names, conditions)):  # type: ignore[arg-type]
        await eventually(lambda: told() == {("item-failing", "services/registry"), ("service", "runner")})
        services.answers.update(registry=None, runner=None)
        await eventually(lambda: not told())
