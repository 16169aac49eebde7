"""Commands with an Idempotency-Key are done once, also when the process dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mao_shared.errors import AlreadyExists, Conflict, InvalidInput
from mao_shared.models import Record
from mao_shared.store import Records, Store, Stored
from mao_shared.store.memory import MemoryStore
from mao_shared.web.dependencies import Attempt, once


class Order(Record):
    item: str


class Receipt(Record):
    number: str
    item: str


class Died(Exception):
    """Simulates a killed process."""


Make = Callable[[Attempt], Awaitable[Stored[Receipt]]]


def creator(store: Store, item: str, dies_after: bool = False) -> Make:
    """Create a receipt named after the attempt, as services name their runs."""
    receipts = Records(store, "/receipts/", Receipt)

    async def make(attempt: Attempt) -> Stored[Receipt]:
        receipt = Receipt(number=attempt.token, item=item)
        revision = await receipts.create(attempt.token, receipt)
        if dies_after:
            raise Died
        if revision is None:
            found = await receipts.get(attempt.token)
            assert found is not None
            return found
        return Stored(receipt, revision)

    return make


async def send(store: Store, item: str, key: str | None, make: Make | None = None) -> Stored[Receipt]:
    order = Order(item=item)
    return await once(store, "node-1", "orders.create", key, order, Receipt, make or creator(store, item))


async def count(store: Store) -> int:
    return len((await store.list("/receipts/")).entries)


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


async def test_idempotency_without_a_key_every_call_creates(store: Store) -> None:
    await send(store, "tea", None)
    await send(store, "tea", None)
    assert await count(store) == 2


async def test_idempotency_repeat_gets_the_first_answer(store: Store) -> None:
    first = await send(store, "tea", "k")
    assert await send(store, "tea", "k") == first
    assert await count(store) == 1


async def test_idempotency_another_body_under_the_same_key_is_refused(store: Store) -> None:
    await send(store, "tea", "k")
    with pytest.raises(InvalidInput) as refused:
        await send(store, "coffee", "k")
    assert refused.value.code == "idempotency-key-reused"
    assert await count(store) == 1


async def test_idempotency_crash_after_create_creates_once(store: Store) -> None:
    with pytest.raises(Died):
        await send(store, "tea", "k", creator(store, "tea", dies_after=True))
    again = await send(store, "tea", "k")
    assert await count(store) == 1
    assert await send(store, "tea", "k") == again


async def test_idempotency_two_at_once_create_one(store: Store) -> None:
    first, second = await asyncio.gather(send(store, "tea", "k"), send(store, "tea", "k"))
    assert first.record == second.record
    assert await count(store) == 1


async def test_idempotency_refusal_is_not_remembered_as_done(store: Store) -> None:
    async def refuses(_: Attempt) -> Stored[Receipt]:
        raise Conflict("not now")

    with pytest.raises(Conflict):
        await send(store, "tea", "k", refuses)
    assert (await send(store, "tea", "k")).record.item == "tea"


class Menu:
    """Orders under user-chosen names, among which `once` must recognise its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.receipts = Records(store, "/receipts/", Receipt)
        self.dies = False

    async def order(self, item: str, key: str) -> Stored[Receipt]:
        async def make(attempt: Attempt) -> Stored[Receipt]:
            wanted = Receipt(number=item, item=item)
            revision = await self.receipts.create(item, wanted)
            if self.dies:
                raise Died
            there = await self.receipts.get(item)
            assert there is not None
            if revision is None and not (attempt.name_was_free and there.record == wanted):
                raise AlreadyExists(item)
            return there

        async def taken() -> bool:
            return await self.receipts.get(item) is not None

        body = Order(item=item)
        return await once(self.store, "node-1", "orders.create", key, body, Receipt, make, taken=taken)


async def test_idempotency_repeat_after_crash_returns_the_created_record(store: Store) -> None:
    menu = Menu(store)
    menu.dies = True
    with pytest.raises(Died):
        await menu.order("tea", "k")
    menu.dies = False
    assert (await menu.order("tea", "k")).record.item == "tea"
    with pytest.raises(AlreadyExists):
        await menu.order("tea", "another")


async def test_idempotency_refusal_because_the_name_is_taken_stays_one(store: Store) -> None:
    menu = Menu(store)
    await menu.order("tea", "first")
    for _ in range(2):
        with pytest.raises(AlreadyExists):
            await menu.order("tea", "second")


async def test_idempotency_two_at_once_under_one_key_get_the_same_name(store: Store) -> None:
    menu = Menu(store)
    first, second = await asyncio.gather(menu.order("tea", "k"), menu.order("tea", "k"))
    assert first == second


async def test_idempotency_over_etcd(etcd_store: Store) -> None:
    first = await send(etcd_store, "tea", "k")
    assert await send(etcd_store, "tea", "k") == first
    assert await count(etcd_store) == 1
