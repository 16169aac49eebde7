"""An unreadable record is reported and set aside; the other records stay available."""

from __future__ import annotations

import asyncio

import pytest

from mao_shared.conditions import MAX_SHOWN, Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.models import Alarm
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.reconcile import Backoff, Controller, Mirror
from mao_shared.store import Records, Unreadable
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from mao_shared.store.unreadable import recovery_step
from tests.support.unreadable import KINDS, corrupt
from tests.support.waiting import eventually

PREFIX = "/mao/nodes/n/alarms/"


def alarm(name: str) -> Alarm:
    return Alarm.model_validate(
        {"id": name, "kind": "spike", "node": "n", "raised_at": "2026-01-31T12:00:00Z", "detail": "9 rows"}
    )


def bad(name: str, kind: str) -> bytes:
    return corrupt(dump(alarm(name)), kind, key_field="id", enum_field="kind")


def shown(conditions: Conditions) -> list[str]:
    return sorted(
        condition.subject for condition in conditions.current() if condition.name == "record-unreadable"
    )


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
async def records(conditions: Conditions) -> Records[Alarm]:
    found = Records(MemoryStore(), PREFIX, Alarm, Unreadable(conditions))
    for name in ("a", "z"):
        await found.create(name, alarm(name))
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_records_unreadable_one_is_beside_the_others(
    records: Records[Alarm], conditions: Conditions, kind: str
) -> None:
    await records.store.create(PREFIX + "m", bad("m", kind))
    page = await records.page()
    assert [item.record.id for item in page.items] == ["a", "z"]
    assert [broken.key for broken in page.unreadable] == [PREFIX + "m"]
    assert [entry.record.id for entry in await records.all()] == ["a", "z"]
    assert set(await records.by_name()) == {"a", "z"}
    with pytest.raises(RecordUnreadable) as raised:
        await records.get("m")
    assert (raised.value.status, raised.value.code) == (409, "record-unreadable")
    assert await records.find("m") is None
    assert shown(conditions) == [PREFIX + "m"]
    listed = Listing[Alarm](items=[], unreadable=unreadable_items(page.unreadable)).model_dump()
    assert listed["unreadable"][0]["name"] == "m"
    assert all(listed["unreadable"][0][name] for name in ("unreadable", "next"))


@pytest.mark.parametrize("key", [PREFIX + "m", "/mao/nodes/n/schedules/j", "odd"])
def test_way_out_names_restore_and_removal_commands(key: str) -> None:
    told = recovery_step(key)
    assert "maoctl node restore FILE --replace" in told
    assert ("maoctl job remove j" if "schedules" in key else f"etcdctl del {key}") in told


def test_unreadable_listing_without_unreadable_ones_says_nothing_of_them() -> None:
    assert Listing[Alarm](items=[]).model_dump() == {"items": [], "cursor": None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["mended", "removed", "deleted by us"])
async def test_unreadable_record_is_no_more_shown_when_it_is_well_or_gone(
    records: Records[Alarm], conditions: Conditions, kind: str, way: str
) -> None:
    revision = await records.store.create(PREFIX + "m", bad("m", kind))
    await records.all()
    assert revision is not None
    await records.unreadable.check()
    assert shown(conditions) == [PREFIX + "m"]
    if way == "mended":
        await records.replace("m", alarm("m"), revision)
    elif way == "removed":
        await records.store.delete(PREFIX + "m")
    else:
        assert await records.delete("m")
    await records.unreadable.check()
    assert shown(conditions) == []


async def test_unreadable_records_beyond_many_are_counted(
    records: Records[Alarm], conditions: Conditions
) -> None:
    names = [f"x{number:04}" for number in range(MAX_SHOWN + 50)]
    for name in names:
        await records.store.create(PREFIX + name, b"")
    await records.all()
    assert len(shown(conditions)) == MAX_SHOWN + 1
    for name in names:
        await records.delete(name)
    assert shown(conditions) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_unreadable_mirror_unreadable_record_is_set_aside_until_it_can_be_read(
    records: Records[Alarm], conditions: Conditions, kind: str
) -> None:
    mirror = Mirror(records, conditions=conditions)
    worked: list[str] = []

    async def reconcile(name: str) -> None:
        worked.append(name)

    tasks = [
        asyncio.create_task(work)
        for work in (mirror.run(), Controller("jobs", reconcile).watches(mirror).run())
    ]
    try:
        await eventually(lambda: set(worked) == {"a", "z"})
        known = mirror.get("a")
        assert known is not None
        revision = await records.store.replace(PREFIX + "a", bad("a", kind), known.revision)
        assert revision is not None
        await eventually(lambda: mirror.is_set_aside("a"))
        assert mirror.get("a") == known
        worked.clear()
        await records.create("m", alarm("m"))
        await eventually(lambda: "m" in worked)
        assert "a" not in worked
        assert shown(conditions) == [PREFIX + "a"]
        await records.replace("a", alarm("a"), revision)
        await eventually(lambda: "a" in worked)
        assert not mirror.is_set_aside("a")
        assert shown(conditions) == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("drop", [True, False])
async def test_unreadable_mirror_tells_when_an_unreadable_record_is_gone(
    records: Records[Alarm], conditions: Conditions, drop: bool
) -> None:
    await records.store.create(PREFIX + "m", b"")
    mirror = Mirror(records, drop_unreadable=drop)
    task = asyncio.create_task(mirror.run())
    try:
        await mirror.synced.wait()
        assert mirror.unreadable == {"m"}
        assert shown(conditions) == [PREFIX + "m"]
        await records.store.delete(PREFIX + "m")
        await eventually(lambda: not mirror.unreadable)
        assert shown(conditions) == []
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_unreadable_mirror_failing_subscriber_blocks_no_other(
    records: Records[Alarm], conditions: Conditions
) -> None:
    mirror, told = Mirror(records, conditions=conditions), set[str]()

    def stumbles(name: str) -> None:
        if name == "a":
            raise KeyError(name)
        told.add(name)

    mirror.subscribe(stumbles)
    task = asyncio.create_task(mirror.run())
    try:
        await eventually(lambda: told == {"z"})
        await records.create("m", alarm("m"))
        await eventually(lambda: told == {"m", "z"})
        assert [condition.name for condition in conditions.current()] == ["item-failing"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_unreadable_controller_failing_record_is_shown_and_others_go_on(
    records: Records[Alarm], conditions: Conditions
) -> None:
    mirror, worked, well = Mirror(records), set[str](), asyncio.Event()

    async def reconcile(name: str) -> None:
        if name == "a" and not well.is_set():
            raise ZeroDivisionError
        worked.add(name)

    controller = Controller("alarms", reconcile, conditions=conditions, backoff=Backoff(0.01, 30.0))
    controller.watches(mirror)
    tasks = [asyncio.create_task(work) for work in (mirror.run(), controller.run())]
    try:
        await eventually(lambda: worked == {"z"} and bool(conditions.current()))
        assert [condition.subject for condition in conditions.current()] == ["alarms/a"]
        well.set()
        await eventually(lambda: worked == {"a", "z"} and not conditions.current())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
