"""A session keeps its lease alive, reports when it may have expired, and takes a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mao_shared.errors import StoreUnavailable
from mao_shared.reconcile import Session
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually

QUICK = 0.01  # seconds between renewals
SECONDS = 5.0
KEY = "/mao/members/a"


@pytest.fixture
async def store() -> AsyncIterator[UnavailableStore]:
    store = UnavailableStore()
    yield store
    await store.close()


class Owner:
    """Write its key on every new lease, replacing an older one; fail the first `failures` times."""

    def __init__(self, store: Store, failures: int = 0) -> None:
        self.store = store
        self.failures = failures
        self.leases: list[int] = []

    async def make_key(self, lease: int) -> None:
        self.leases.append(lease)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the owner's own fault")
        old = await self.store.get(KEY)
        if old is None:
            await self.store.create(KEY, b"", lease=lease)
        else:
            await self.store.replace(KEY, b"", old.revision, lease=lease)


async def held(session: Session) -> None:
    await asyncio.wait_for(session.held.wait(), SECONDS)


async def lost(session: Session) -> None:
    await asyncio.wait_for(session.lost.wait(), SECONDS)


async def test_session_keys_live_as_long_as_the_session(store: UnavailableStore) -> None:
    owner = Owner(store)
    async with Session(store, 60, owner.make_key, interval=QUICK) as session:
        await held(session)
        assert await store.get(KEY) is not None
        assert owner.leases == [session.lease]
        assert not session.lost.is_set()
    assert await store.get(KEY) is None
    assert session.lost.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_session_lease_is_renewed_over_and_over(store: UnavailableStore) -> None:
    async with Session(store, 60, interval=QUICK) as session:
        await held(session)
        lease, calls = session.lease, store.calls
        await eventually(lambda: store.calls > calls + 5)
        assert session.lease == lease
        assert not session.lost.is_set()


async def test_session_expired_lease_is_replaced_with_its_keys(store: UnavailableStore) -> None:
    owner = Owner(store)
    async with Session(store, 60, owner.make_key, interval=QUICK) as session:
        await held(session)
        first = session.lease
        assert first is not None
        await store.revoke(first)
        await eventually(lambda: len(owner.leases) == 2)
        await held(session)
        assert session.lease == owner.leases[1] != first
        assert not session.lost.is_set()
        assert await store.get(KEY) is not None


async def test_session_outage_shorter_than_the_ttl_goes_unnoticed(store: UnavailableStore) -> None:
    owner = Owner(store)
    async with Session(store, 60, owner.make_key, interval=QUICK) as session:
        await held(session)
        store.away = True
        calls = store.calls
        await eventually(lambda: store.calls > calls + 3)
        assert session.held.is_set()
        store.away = False
        await eventually(lambda: store.calls > calls + 6)
        assert len(owner.leases) == 1


async def test_session_outage_longer_than_the_ttl_is_signalled_and_overcome(store: UnavailableStore) -> None:
    owner = Owner(store)
    async with Session(store, 1, owner.make_key, interval=QUICK) as session:
        await held(session)
        store.away = True
        await lost(session)
        assert not session.held.is_set()
        await eventually(lambda: KEY not in store._entries)
        store.away = False
        await held(session)
        assert len(owner.leases) == 2
        assert await store.get(KEY) is not None


async def test_session_lease_that_outlived_the_outage_is_held_on(store: UnavailableStore) -> None:
    """etcd restarts the lease's countdown when it restarts, so the keys were never deleted."""
    owner = Owner(store)
    async with Session(store, 60, owner.make_key, interval=QUICK) as session:
        await held(session)
        session._mark_lost()
        await held(session)
        assert len(owner.leases) == 1
        assert not session.lost.is_set()


async def test_session_entering_does_not_wait_for_a_store_that_is_away(store: UnavailableStore) -> None:
    store.away = True
    async with Session(store, 60, interval=QUICK) as session:
        await eventually(lambda: store.calls > 2)
        assert session.lease is None
        store.away = False
        await held(session)
        assert session.lease is not None


async def test_session_failed_owner_is_retried_with_same_lease(store: UnavailableStore) -> None:
    owner = Owner(store, failures=2)
    async with Session(store, 60, owner.make_key, interval=QUICK) as session:
        await held(session)
        assert owner.leases == [session.lease] * 3
        assert await store.get(KEY) is not None


async def test_session_key_of_an_earlier_life_moves_to_the_new_lease() -> None:
    store = MemoryStore()
    earlier = await store.grant(60)
    await store.create(KEY, b"", lease=earlier)
    async with Session(store, 60, Owner(store).make_key, interval=QUICK) as session:
        await held(session)
        await store.revoke(earlier)
        assert await store.get(KEY) is not None
    await store.close()


async def test_session_leaving_while_the_store_is_away_raises_nothing(store: UnavailableStore) -> None:
    class Stuck(UnavailableStore):
        async def revoke(self, lease: int) -> None:
            raise StoreUnavailable("away")

    stuck = Stuck()
    async with Session(stuck, 60, interval=QUICK) as session:
        await held(session)
    assert session.lost.is_set()
    await stuck.close()


async def test_session_begun_again_it_takes_a_new_lease_at_once(store: UnavailableStore) -> None:
    leases: asyncio.Queue[int] = asyncio.Queue()
    async with Session(store, 30, leases.put, interval=1000) as session:
        first = await asyncio.wait_for(leases.get(), SECONDS)
        session.restart_lease()
        assert not session.held.is_set()
        assert await asyncio.wait_for(leases.get(), SECONDS) != first
        await asyncio.wait_for(session.held.wait(), SECONDS)


async def test_session_begun_again_does_not_wait_for_an_owner_that_failed(store: UnavailableStore) -> None:
    owner = Owner(store, failures=1)
    async with Session(store, 3000, owner.make_key, interval=1000) as session:
        await eventually(lambda: len(owner.leases) == 1)
        session.restart_lease()
        await held(session)
        assert owner.leases[-1] == session.lease != owner.leases[0]
