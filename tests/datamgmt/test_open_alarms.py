"""The number of open alarms by kind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mao_datamgmt.monitoring.open_alarms import OpenAlarms
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Acknowledgement, Alarm
from mao_shared.reconcile import background
from mao_shared.store import Unreadable
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.waiting import eventually

NODE = "node-1"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def alarm(name: str, kind: str) -> Alarm:
    return Alarm(id=name, kind=kind, node=NODE, raised_at=NOW, detail="x")


@pytest.mark.parametrize("end", [{"acknowledged": Acknowledgement(at=NOW)}, {"over": NOW}])
async def test_open_alarms_counts_until_seen_or_over(end: dict[str, object]) -> None:
    store, conditions, counted = MemoryStore(), Conditions(), dict[str, int]()
    open_alarms = OpenAlarms(NODE, store, counted.__setitem__, Unreadable(conditions), conditions)
    first, second, disk = alarm("a", "spike"), alarm("b", "spike"), alarm("c", "disk")
    async with background(*open_alarms.loops()):
        await store.create(keys.alarm(NODE, "a"), dump(first))
        await store.create(keys.alarm(NODE, "b"), dump(second))
        revision = await store.create(keys.condition_alarm(NODE, "c"), dump(disk))
        assert revision is not None
        await eventually(lambda: counted == {"spike": 2, "disk": 1})
        await store.replace(keys.condition_alarm(NODE, "c"), dump(disk.model_copy(update=end)), revision)
        await eventually(lambda: counted == {"spike": 2, "disk": 0})
        await store.delete(keys.alarm(NODE, "a"))
        await eventually(lambda: counted == {"spike": 1, "disk": 0})
    await store.close()
