"""Alarms about conditions are raised once and end with the condition, also across store outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import pytest

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Alarm, Delivery, Webhook
from mao_shared.models.node import Condition
from mao_shared.reconcile import Backoff, background
from mao_shared.service.alarms import ConditionAlarms, to_alarm
from mao_shared.store import Check, Records, Store, Write
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually, eventually_answers

NODE = "node-1"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def alarms_in(store: Store) -> list[Alarm]:
    found = await Records(store, keys.condition_alarms_prefix(NODE), Alarm).all()
    return [entry.record for entry in found]


async def open_in(store: Store) -> int:
    return len((await store.list(keys.open_conditions_prefix(NODE))).entries)


@asynccontextmanager
async def alarming(
    store: Store, service: str = "runner", *, settle: float = 0, calm: float = 0, inherited: float = 0
) -> AsyncIterator[Conditions]:
    conditions = Conditions()
    alarms = ConditionAlarms(service, NODE, store, conditions, settle=settle, calm=calm, inherited=inherited)
    async with background(alarms.run()):
        yield conditions


def report(conditions: Conditions, name: str = "engine", subject: str = "") -> None:
    conditions.report(name, subject, detail="It is away.", next_step="Start it.", state="failed")


async def raised(store: Store, count: int = 1) -> list[Alarm]:
    async def enough() -> bool:
        return len(await alarms_in(store)) >= count

    await eventually_answers(enough)
    return await alarms_in(store)


async def all_over(store: Store) -> None:
    async def over() -> bool:
        return await open_in(store) == 0 and all(alarm.over for alarm in await alarms_in(store))

    await eventually_answers(over)


async def test_alarms_alarm_is_raised_once_and_says_when_it_is_over() -> None:
    store = MemoryStore()
    async with alarming(store) as conditions:
        report(conditions)
        [first] = await raised(store)
        conditions.report("engine", detail="Still.", next_step="Start it.", state="failed")
        assert (first.kind, first.service, first.over) == ("engine", "runner", None)
        conditions.clear("engine")
        await all_over(store)
        [ended] = await alarms_in(store)
        assert ended.id == first.id
        report(conditions)
        again = await raised(store, 2)
        assert len({alarm.id for alarm in again}) == 2


async def test_alarms_blip_is_no_alarm() -> None:
    store = MemoryStore()
    async with alarming(store, settle=3600) as conditions:
        report(conditions)
        conditions.clear("engine")
        conditions.report("disk", detail="full", next_step="Free space.")
    async with alarming(store) as conditions:
        report(conditions, "clone", "data")
        assert [alarm.kind for alarm in await raised(store)] == ["clone"]


async def test_alarms_condition_that_flaps_is_one_alarm() -> None:
    store = MemoryStore()
    async with alarming(store, calm=3600) as conditions:
        report(conditions)
        await raised(store)
        for _ in range(5):
            conditions.clear("engine")
            report(conditions)
            await asyncio.sleep(0)
        report(conditions, "clone", "data")
        kinds = [alarm.kind for alarm in await raised(store, 2)]
        assert sorted(kinds) == ["clone", "engine"]


async def test_alarms_of_several_services_are_one_until_all_recover() -> None:
    store = MemoryStore()
    async with alarming(store, "runner") as one, alarming(store, "registry") as other:
        report(one, "store")
        await raised(store)
        report(other, "store")

        async def both() -> bool:
            entries = (await store.list(keys.open_conditions_prefix(NODE))).entries
            return any(b"registry" in entry.value and b"runner" in entry.value for entry in entries)

        await eventually_answers(both)
        one.clear("store")
        report(one, "clone", "data")
        await raised(store, 2)
        assert [alarm.over for alarm in await alarms_in(store) if alarm.kind == "store"] == [None]
        other.clear("store")
        one.clear("clone", "data")
        await all_over(store)
        assert len(await alarms_in(store)) == 2


@pytest.mark.parametrize("comes_back", [True, False])
async def test_alarms_restart_raises_nothing_again_and_ends_what_is_over(comes_back: bool) -> None:
    store = MemoryStore()
    async with alarming(store) as conditions:
        report(conditions)
        [first] = await raised(store)
    async with alarming(store, inherited=3600 if comes_back else 0) as conditions:
        if comes_back:
            report(conditions)
            report(conditions, "clone", "data")
            await raised(store, 2)
            conditions.clear("engine")
            conditions.clear("clone", "data")
        await all_over(store)
        assert [alarm.id for alarm in await alarms_in(store) if alarm.kind == "engine"] == [first.id]


async def test_alarms_wait_while_the_store_is_away_and_are_written_when_all_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mao_shared.service.alarms.WRITE_BACKOFF", Backoff(0.01, 30.0))
    store = UnavailableStore()
    store.away = True
    async with alarming(store) as conditions:
        report(conditions, "store")
        await asyncio.sleep(0)
        conditions.clear("store")
        report(conditions, "clone", "data")
        store.away = False
        kinds = {alarm.kind: alarm.over for alarm in await raised(store, 2)}
        assert kinds.keys() == {"store", "clone"}

        async def over() -> bool:
            return any(alarm.over for alarm in await alarms_in(store))

        await eventually_answers(over)
        assert [alarm.kind for alarm in await alarms_in(store) if alarm.over] == ["store"]


async def test_alarms_each_webhook_gets_a_delivery() -> None:
    store = MemoryStore()
    hooks = Records(store, keys.webhooks_prefix(NODE), Webhook)
    for name in ("lab", "pager"):
        await hooks.create(
            name, Webhook(name=name, url="https://lab.example.org/", sealed="x", created_at=NOW)
        )
    async with alarming(store) as conditions:
        report(conditions)
        [alarm] = await raised(store)
    due = await Records(store, keys.deliveries_prefix(NODE), Delivery).all()
    assert {(entry.record.alarm, entry.record.webhook) for entry in due} == {
        (alarm.id, "lab"),
        (alarm.id, "pager"),
    }


async def test_alarms_record_that_cannot_be_read_keeps_no_alarm_back() -> None:
    store = MemoryStore()
    await store.create(keys.open_condition(NODE, "engine", ""), b"{torn")
    await store.create(keys.webhook(NODE, "odd"), b"{torn")
    async with alarming(store) as conditions:
        report(conditions)
        assert len(await raised(store)) == 1


@pytest.mark.parametrize(
    ("name", "subject", "facts"),
    [
        ("disk", "", {}),
        ("clone", "data", {"dataset": "data"}),
        ("step-stuck", "run-1/crawl", {"run": "run-1", "step": "crawl"}),
        ("record-unreadable", "/mao/nodes/n/runs/r", {}),
        ("remote", "no name/at all", {}),
    ],
)
def test_alarms_alarm_of_a_condition(name: str, subject: str, facts: dict[str, str]) -> None:
    condition = Condition(name=name, subject=subject, state="failed", detail="So.", since=NOW)
    alarm = to_alarm(condition, NODE, "runner")
    assert alarm.model_dump(include={"dataset", "run", "step"}, exclude_none=True) == facts
    assert alarm.id.startswith(f"20260131T120000000Z.{name}")
    assert "/" not in alarm.id
    later = condition.model_copy(update={"since": NOW.replace(microsecond=5000)})
    assert to_alarm(later, NODE, "runner").id != alarm.id
    assert to_alarm(condition, NODE, "registry").id == alarm.id


async def test_alarms_unreadable_alarm_ends_and_blocks_no_other() -> None:
    store = MemoryStore()
    async with alarming(store) as conditions:
        report(conditions)
        [alarm] = await raised(store)
        key = keys.condition_alarm(NODE, alarm.id)
        entry = await store.get(key)
        assert entry is not None
        await store.replace(key, b"{torn", entry.revision)
        conditions.clear("engine")

        async def none_open() -> bool:
            return await open_in(store) == 0

        await eventually_answers(none_open)
        await store.delete(key)
        report(conditions, "clone", "data")
        assert [a.kind for a in await raised(store)] == ["clone"]


class OddStore(MemoryStore):
    """A store that raises an unexpected error at the first transaction."""

    odd = True

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if self.odd:
            self.odd = False
            raise ValueError("odd")
        return await super().transact(checks, writes)


async def test_alarms_unwritable_alarm_blocks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mao_shared.service.alarms.WRITE_BACKOFF", Backoff(0.01, 30.0))
    store = OddStore()
    async with alarming(store) as conditions:
        report(conditions)
        report(conditions, "clone", "data")
        assert [alarm.kind for alarm in await raised(store)] == ["clone"]


async def test_alarms_left_by_earlier_process_end_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store was unavailable at the start, while the condition came and went."""
    monkeypatch.setattr("mao_shared.service.alarms.WRITE_BACKOFF", Backoff(0.01, 30.0))
    store = UnavailableStore()
    async with alarming(store) as conditions:
        report(conditions)
        await raised(store)
    store.away = True
    async with alarming(store) as conditions:
        report(conditions)
        await eventually(lambda: store.calls > 0)
        conditions.clear("engine")
        store.away = False
        await all_over(store)
        assert len(await alarms_in(store)) == 1


async def test_alarms_order_of_reports_does_not_matter_to_the_listener() -> None:
    """Conditions reported before the alarms started are raised as well."""
    store, conditions = MemoryStore(), Conditions()
    report(conditions)
    async with background(ConditionAlarms("runner", NODE, store, conditions, settle=0).run()):
        await eventually(lambda: conditions.current())
        assert [alarm.kind for alarm in await raised(store)] == ["engine"]


async def test_alarms_condition_that_becomes_worse_is_an_alarm_of_its_own() -> None:
    store = MemoryStore()
    async with alarming(store) as conditions:
        conditions.report("disk", detail="Little room.", next_step="Make room.")
        await raised(store)
        conditions.report("disk", detail="No room.", next_step="Make room.", state="failed")
        told = await raised(store, 2)
        assert sorted((alarm.detail, alarm.over is not None) for alarm in told) == [
            ("Little room.", True),
            ("No room.", False),
        ]
        conditions.report("disk", detail="Little room.", next_step="Make room.")
        conditions.clear("disk")
        await all_over(store)
        assert len(await alarms_in(store)) == 2


@pytest.mark.parametrize(("before", "alarms"), [("degraded", 2), ("failed", 1)])
async def test_alarms_failed_condition_after_restart_is_sent_if_worse(
    before: Literal["degraded", "failed"], alarms: int
) -> None:
    store = MemoryStore()
    async with alarming(store) as conditions:
        conditions.report("disk", detail="Before.", next_step="Make room.", state=before)
        await raised(store)
    async with alarming(store, inherited=3600) as conditions:
        await asyncio.sleep(0)
        conditions.report("other", detail="Seen after the restart.", next_step="Wait.")
        await raised(store, 2)  # what was inherited has been taken up
        conditions.report("disk", detail="After.", next_step="Make room.", state="failed")
        conditions.report("last", detail="And then.", next_step="Wait.")
        await raised(store, alarms + 2)
        assert len([alarm for alarm in await alarms_in(store) if alarm.kind == "disk"]) == alarms
