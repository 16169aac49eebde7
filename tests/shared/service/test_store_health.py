"""Conditions of the node's store: etcd full, nearly full, unavailable, and recovered."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from mao_shared import keys
from mao_shared.conditions import Conditions, conditions_of
from mao_shared.errors import StoreUnavailable
from mao_shared.models import Alarm
from mao_shared.models.node import Condition
from mao_shared.reconcile import background
from mao_shared.service.alarms import ConditionAlarms
from mao_shared.service.store_health import StoreHealthWatch, judge_store
from mao_shared.store import Put, Records, Store, StoreHealth, open_store
from tests.support.etcd import EtcdServer
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually_answers

from .test_app import client_of, make_app

pytestmark = pytest.mark.etcd

QUOTA = 16 << 20  # bytes; etcd takes no smaller one seriously
PIECE = b"x" * (1 << 19)


@pytest.fixture
def small_etcd(monkeypatch: pytest.MonkeyPatch) -> Iterator[EtcdServer]:
    """Run an etcd with a quota of 16 MiB."""
    monkeypatch.setenv("ETCD_QUOTA_BACKEND_BYTES", str(QUOTA))
    server = EtcdServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def small_store(small_etcd: EtcdServer) -> AsyncIterator[Store]:
    store = open_store(small_etcd.endpoints)
    yield store
    await store.close()


async def fill(store: Store) -> None:
    """Write until etcd refuses."""
    refused = None
    for number in range(1000):
        try:
            await store.transact([], [Put(f"/mao/nodes/n/ballast/{number % 4}", PIECE)])
        except StoreUnavailable as error:
            refused = error.code
            break
    assert refused == "store-full"


def make_room(etcd: EtcdServer) -> None:
    """Free space by the steps in docs/operations.md."""
    call = ["etcdctl", f"--endpoints={etcd.endpoints}"]
    status = subprocess.run([*call, "endpoint", "status", "-w=json"], check=True, capture_output=True)
    revision = status.stdout.partition(b'"revision":')[2].partition(b",")[0].decode()
    env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    for words in (["compact", revision, "--physical"], ["defrag"], ["alarm", "disarm"]):
        subprocess.run([*call, *words], check=True, capture_output=True, env=env)


async def test_store_health_full_etcd_fails_and_recovers(small_etcd: EtcdServer, small_store: Store) -> None:
    app = make_app(store=small_store.ping)
    conditions = conditions_of(app)
    watch = StoreHealthWatch(small_store, conditions, QUOTA)
    alarms = ConditionAlarms("toolbox", "n", small_store, conditions, settle=0, calm=0)
    async with client_of(app) as client, background(alarms.run()):
        assert await watch.check()
        assert (await client.get("/readyz")).status_code == 200
        await fill(small_store)
        await small_store.ping()  # it answers all the same
        assert not await watch.check()
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "NOSPACE" in ready.json()["checks"]["store"]
        [told] = (await client.get("/conditions")).json()["items"]
        assert "etcdctl defrag" in told["next"]
        assert (
            'mao_condition{name="store",state="failed",subject=""} 1.0' in (await client.get("/metrics")).text
        )
        make_room(small_etcd)
        assert await watch.check()
        assert (await client.get("/readyz")).status_code == 200

        async def alarm_is_over() -> bool:
            listed = await Records(small_store, keys.condition_alarms_prefix("n"), Alarm).all()
            return [(entry.record.kind, entry.record.over is None) for entry in listed] == [("store", False)]

        await eventually_answers(alarm_is_over)


async def test_store_health_unreachable_etcd_fails_until_back(small_etcd: EtcdServer) -> None:
    store, conditions = open_store(small_etcd.endpoints, deadline=1.0), Conditions()
    watch = StoreHealthWatch(store, conditions, QUOTA)
    try:
        small_etcd.kill()
        assert not await watch.check()
        [told] = conditions.current()
        assert (told.name, told.state) == ("store", "failed")
        small_etcd.start()
        await eventually_answers(watch.check)
        assert conditions.current() == []
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("health", "state", "word"),
    [
        (StoreHealth(1, 79), None, ""),
        (StoreHealth(1, 80), "degraded", "80 %"),
        (StoreHealth(1, 100), "degraded", "100 %"),
        (StoreHealth(1, 10, frozenset({"NOSPACE"})), "failed", "NOSPACE"),
        (StoreHealth(1, 10, frozenset({"CORRUPT"})), "failed", "corrupt"),
        (StoreHealth(1, 10, frozenset({"NOSPACE", "CORRUPT"})), "failed", "corrupt"),
    ],
)
def test_judge(health: StoreHealth, state: str | None, word: str) -> None:
    finding = judge_store(health, 100)
    assert (finding and finding.state) == state
    assert finding is None or word in finding.detail


async def test_store_health_slow_store_is_degraded_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mao_shared.service.store_health.SLOW_READ_SECONDS", 0.0)
    conditions = Conditions()
    watch = StoreHealthWatch(UnavailableStore(), conditions, QUOTA)
    assert await watch.check()
    assert not await watch.check()
    assert [condition.state for condition in conditions.current()] == ["degraded"]


async def test_store_health_look_runs_by_itself() -> None:
    store, conditions = UnavailableStore(), Conditions()
    store.away = True
    told: list[Condition] = []
    conditions.subscribe(told.append)

    async def reported() -> bool:
        return bool(told)

    async with background(StoreHealthWatch(store, conditions, QUOTA).run()):
        await eventually_answers(reported)
    assert (told[0].name, told[0].detail) == ("store", "The store is away.")
