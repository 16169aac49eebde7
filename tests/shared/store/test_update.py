"""Retried guarded writes such as `Records.update`, on both stores."""

from __future__ import annotations

import pytest

from mao_shared.errors import Conflict, StoreUnavailable, StoreUnknown
from mao_shared.models.common import Record
from mao_shared.store import Records, Store, pages, retry_lost
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import ATTEMPTS


class Counter(Record):
    n: int = 0


def more(counter: Counter) -> Counter:
    return Counter(n=counter.n + 1)


class Overtaking(Records[Counter]):
    """Change the record concurrently just before the first writes."""

    def __init__(self, store: Store, times: int) -> None:
        super().__init__(store, "/counters/", Counter)
        self.times = times

    async def replace(self, name: str, record: Counter, revision: int) -> int | None:
        if self.times > 0:
            self.times -= 1
            await super().replace(name, Counter(n=100 * self.times + 100), revision)
        return await super().replace(name, record, revision)


class Silent(MemoryStore):
    """Lose the first answer to a write, and the write itself unless `done`."""

    def __init__(self, *, done: bool, times: int = 1) -> None:
        super().__init__()
        self.done, self.times = done, times

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        if self.times == 0:
            return await super().replace(key, value, revision, lease=lease)
        self.times -= 1
        if self.done:
            await super().replace(key, value, revision, lease=lease)
        raise StoreUnknown("it timed out")


async def test_update_changes_what_is_there_and_nothing_else(store: Store) -> None:
    counters = Records(store, "/counters/", Counter)
    assert await counters.update("a", more) is None
    revision = await counters.create("a", Counter(n=1))
    assert revision is not None
    updated = await counters.update("a", more)
    assert updated is not None
    assert (updated.record.n, updated.revision > revision) == (2, True)
    assert await counters.get("a") == updated
    for same in (lambda _: None, lambda record: record, lambda record: record.model_copy()):
        assert await counters.update("a", same) == updated


async def test_create_or_update_may_make_the_record(store: Store) -> None:
    counters = Records(store, "/counters/", Counter)
    assert await counters.create_or_update("a", lambda _: None) is None
    made = await counters.create_or_update("a", lambda found: more(found or Counter()))
    assert made is not None
    assert made.record.n == 1
    again = await counters.create_or_update("a", lambda found: more(found or Counter()))
    assert again is not None
    assert again.record.n == 2


async def test_update_lost_races_are_decided_again(store: Store) -> None:
    counters = Overtaking(store, 2)
    await counters.create("a", Counter())
    updated = await counters.update("a", more)
    assert updated is not None
    assert updated.record.n == 101


async def test_update_gives_up_when_others_never_stop() -> None:
    counters = Overtaking(MemoryStore(), ATTEMPTS)
    await counters.create("a", Counter())
    with pytest.raises(Conflict) as caught:
        await counters.update("a", more)
    assert caught.value.code == "busy"


@pytest.mark.parametrize("done", [True, False])
async def test_update_write_that_timed_out_happens_once(done: bool) -> None:
    """The change is not idempotent (an increment), so it must happen exactly once."""
    counters = Records(Silent(done=done), "/counters/", Counter)
    await counters.create("a", Counter())
    updated = await counters.update("a", more)
    assert updated is not None
    assert updated.record.n == 1
    assert await counters.get("a") == updated


async def test_update_outages_are_passed_on() -> None:
    counters = Records(Silent(done=False, times=ATTEMPTS), "/counters/", Counter)
    await counters.create("a", Counter())
    with pytest.raises(StoreUnknown):
        await counters.update("a", more)

    async def away(key: str) -> None:
        raise StoreUnavailable("away")

    counters.store.get = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await counters.update("a", more)


async def test_put_writes_over_whatever_is_there(store: Store) -> None:
    counters = Records(store, "/counters/", Counter)
    assert await counters.put("a", Counter(n=1))
    await store.create("/counters/b", b"nonsense")
    lease = await store.grant(60)
    for name in ("a", "b"):
        assert await counters.put(name, Counter(n=2), lease=lease)
    assert {name: counter.n for name, counter in (await counters.by_name()).items()} == {"a": 2, "b": 2}
    await store.revoke(lease)
    assert await counters.by_name() == {}


async def test_retry_lost_passes_an_unknown_write_on_where_it_is_asked_to() -> None:
    calls = 0

    async def attempt() -> str | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            return None
        if calls == 2:
            raise StoreUnknown("it timed out")
        return "done"

    with pytest.raises(StoreUnknown):
        await retry_lost(attempt, "it", unknown_is_lost=False)
    calls = 0
    assert await retry_lost(attempt, "it") == "done"


async def test_retry_lost_unreadable_result_stays_unknown() -> None:
    calls = 0

    async def attempt() -> str | None:
        nonlocal calls
        calls += 1
        raise StoreUnknown("it timed out") if calls == 1 else StoreUnavailable("away")

    with pytest.raises(StoreUnknown, match="it timed out"):
        await retry_lost(attempt, "it")
    with pytest.raises(StoreUnavailable, match="away"):
        await retry_lost(attempt, "it")


async def test_each_reads_all_pages(store: Store) -> None:
    counters = Records(store, "/counters/", Counter)
    for n in range(5):
        await counters.create(f"{n}", Counter(n=n))
    await store.create("/counters/x", b"nonsense")
    assert [stored.record.n async for stored in counters.iterate(2)] == list(range(5))
    sizes = [len(page.entries) async for page in pages(lambda c: store.list("/counters/", limit=4, cursor=c))]
    assert sizes == [4, 2]
