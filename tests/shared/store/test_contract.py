"""The store contract, sentence by sentence, on both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from mao_shared.errors import Compacted, InvalidInput, StoreUnavailable
from mao_shared.store import Batch, Check, Delete, Entry, Event, Page, Put, Store
from mao_shared.store.protocol import MAX_BYTES, MAX_OPERATIONS

from .conftest import Compact

SECONDS = 10.0


async def make(store: Store, *keys: str) -> list[int]:
    """Create keys whose value is their own name, and return their revisions."""
    revisions = [await store.create(key, key.encode()) for key in keys]
    assert None not in revisions
    return [revision for revision in revisions if revision is not None]


async def collect(watch: AsyncGenerator[Batch, None], count: int) -> list[Event]:
    """Return at least the first `count` events of a watch, and close it."""
    events: list[Event] = []
    async with asyncio.timeout(SECONDS), aclosing(watch):
        async for batch in watch:
            assert batch
            events += batch
            if len(events) >= count:
                return events
    raise AssertionError("a watch ended by itself")


async def now(store: Store) -> int:
    """Return the store's revision, from which to watch the test's own writes."""
    return (await store.list("/")).revision


def keys(page: Page) -> list[str]:
    return [entry.key for entry in page.entries]


# --- keys -------------------------------------------------------------------------------------------------


async def test_store_created_key_is_read_with_the_revision_of_its_creation(store: Store) -> None:
    revision = await store.create("/a/1", b"\0\xffvalue")
    assert revision is not None
    assert await store.get("/a/1") == Entry("/a/1", b"\0\xffvalue", revision)


async def test_store_absent_key_reads_as_none(store: Store) -> None:
    assert await store.get("/a/1") is None


async def test_store_creating_twice_is_a_lost_race_and_writes_nothing(store: Store) -> None:
    await store.create("/a/1", b"first")
    assert await store.create("/a/1", b"second") is None
    entry = await store.get("/a/1")
    assert entry is not None
    assert entry.value == b"first"


async def test_store_of_many_creators_one_wins(store: Store) -> None:
    results = await asyncio.gather(*(store.create("/a/1", str(n).encode()) for n in range(20)))
    winners = [n for n, revision in enumerate(results) if revision is not None]
    entry = await store.get("/a/1")
    assert entry is not None
    assert [entry.value] == [str(n).encode() for n in winners]


async def test_store_replace_moves_the_revision_and_a_stale_one_loses(store: Store) -> None:
    [first] = await make(store, "/a/1")
    second = await store.replace("/a/1", b"new", first)
    assert second is not None
    assert second > first
    assert await store.replace("/a/1", b"newer", first) is None
    assert await store.get("/a/1") == Entry("/a/1", b"new", second)


async def test_store_replacing_an_absent_key_loses(store: Store) -> None:
    assert await store.replace("/a/1", b"", 7) is None
    assert await store.get("/a/1") is None


async def test_store_delete_tells_whether_there_was_something(store: Store) -> None:
    await make(store, "/a/1")
    assert await store.delete("/a/1") is True
    assert await store.get("/a/1") is None
    assert await store.delete("/a/1") is False


async def test_store_guarded_delete_with_another_revision_loses(store: Store) -> None:
    [revision] = await make(store, "/a/1")
    assert await store.delete("/a/1", revision + 1) is False
    assert await store.delete("/a/1", 0) is False
    assert await store.delete("/a/2", revision) is False
    assert await store.delete("/a/1", revision) is True


async def test_store_key_made_again_has_a_higher_revision(store: Store) -> None:
    [first] = await make(store, "/a/1")
    await store.delete("/a/1")
    [second] = await make(store, "/a/1")
    assert second > first + 1
    assert await store.replace("/a/1", b"", first) is None


# --- transactions -----------------------------------------------------------------------------------------


async def test_store_transaction_writes_all_at_one_revision(store: Store) -> None:
    [one, _] = await make(store, "/a/1", "/a/2")
    revision = await store.transact(
        [Check("/a/1", one), Check("/a/3", 0)], [Put("/a/1", b"x"), Delete("/a/2"), Put("/a/3", b"y")]
    )
    assert revision is not None
    page = await store.list("/a/")
    assert page.entries == [Entry("/a/1", b"x", revision), Entry("/a/3", b"y", revision)]


async def test_store_transaction_with_one_failed_check_writes_nothing(store: Store) -> None:
    [one] = await make(store, "/a/1")
    lost = await store.transact(
        [Check("/a/1", one), Check("/a/2", 5)], [Put("/a/1", b"x"), Put("/a/3", b"y")]
    )
    assert lost is None
    assert (await store.list("/a/")).entries == [Entry("/a/1", b"/a/1", one)]


async def test_store_deleting_what_is_not_there_moves_no_revision(store: Store) -> None:
    [one] = await make(store, "/a/1")
    assert await store.transact([], [Delete("/a/2")]) == one
    assert (await store.list("/a/")).revision == one


@pytest.mark.parametrize(
    ("there", "holds"),
    [
        (["/a/0", "/a/5", "/b"], True),  # just outside: the end is not part of it
        (["/a/1"], False),
        (["/a/2"], False),
        (["/a/4\0"], False),
        ([], True),
    ],
)
async def test_store_check_of_a_range_holds_where_none_is_there(
    store: Store, there: list[str], *, holds: bool
) -> None:
    for key in there:
        await store.create(key, b"")
    done = await store.transact([Check("/a/1", 0, until="/a/5")], [Put("/a/3", b"x")])
    assert (done is not None) is holds
    entry = await store.get("/a/3")
    assert (entry is not None) is holds


async def test_store_transaction_takes_as_many_operations_as_promised(store: Store) -> None:
    count = MAX_OPERATIONS
    checks = [Check(f"/a/{n}", 0) for n in range(count)]
    assert await store.transact(checks, [Put(f"/a/{n}", b"") for n in range(count)]) is not None
    with pytest.raises(ValueError, match="at most 128"):
        await store.transact([], [Put(f"/a/{n}", b"") for n in range(count + 1)])


async def test_store_transaction_writes_no_key_twice(store: Store) -> None:
    with pytest.raises(ValueError, match="at most once"):
        await store.transact([], [Put("/a/1", b"x"), Delete("/a/1")])


async def test_store_largest_record_fits_and_a_larger_one_is_refused(store: Store) -> None:
    assert await store.create("/a/1", b"x" * (MAX_BYTES - len("/a/1"))) is not None
    with pytest.raises(InvalidInput) as refused:
        await store.create("/a/2", b"x" * MAX_BYTES)
    assert refused.value.code == "record-too-large"
    assert refused.value.next
    assert await store.get("/a/2") is None


# --- listings ---------------------------------------------------------------------------------------------


async def test_store_listing_holds_the_prefix_alone_in_key_order(store: Store) -> None:
    revisions = await make(store, "/a/2", "/a/10", "/b/1", "/a", "/a0", "/a/1")
    page = await store.list("/a/")
    assert keys(page) == ["/a/1", "/a/10", "/a/2"]
    assert page.revision == revisions[-1]
    assert page.cursor is None


async def test_store_empty_listing_has_a_revision_to_watch_from(store: Store) -> None:
    page = await store.list("/a/")
    [revision] = await make(store, "/a/1")
    assert page.entries == []
    assert page.revision < revision


@pytest.mark.parametrize("newest_first", [False, True])
async def test_store_pages_show_the_first_ones_revision_while_writes_go_on(
    store: Store, newest_first: bool
) -> None:
    names = [f"/a/{n}" for n in range(7)]
    await make(store, *names)
    page = await store.list("/a/", limit=3, newest_first=newest_first)
    first, seen = page, page.entries
    while page.cursor is not None:
        await store.delete(seen[-1].key)
        await make(store, f"/a/{len(seen)}-new")
        await store.delete("/a/4" if newest_first is False else "/a/2")
        page = await store.list("/a/", limit=3, cursor=page.cursor, newest_first=newest_first)
        assert page.revision == first.revision
        seen = seen + page.entries
    assert [entry.key for entry in seen] == sorted(names, reverse=newest_first)


async def test_store_page_that_ends_with_the_last_key_has_no_cursor(store: Store) -> None:
    await make(store, "/a/1", "/a/2", "/a/3", "/a/4")
    page = await store.list("/a/", limit=2)
    assert page.cursor is not None
    assert (await store.list("/a/", limit=2, cursor=page.cursor)).cursor is None


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", ":", "5:", ":a", "0:a", "-1:a", "²:a", "9" * 30 + ":a", "99999999:a"]
)
async def test_store_cursor_of_somebody_elses_making_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await store.list("/a/", cursor=cursor)
    assert refused.value.code == "cursor-invalid"


async def test_store_cursor_does_not_lead_out_of_the_prefix(store: Store) -> None:
    await make(store, "/a/1", "/b/1", "/b/2", "/c/1")
    given = (await store.list("/b/", limit=1)).cursor
    assert given is not None
    forged = given.rpartition(":")[0] + ":/a/0"
    for newest_first in (False, True):
        page = await store.list("/b/", cursor=forged, newest_first=newest_first)
        assert set(keys(page)) <= {"/b/1", "/b/2"}


async def test_store_page_at_a_compacted_revision_raises(store: Store, compact: Compact) -> None:
    await make(store, "/a/1", "/a/2")
    page = await store.list("/a/", limit=1)
    [*_, revision] = await make(store, "/a/3", "/a/4")
    compact(revision)
    with pytest.raises(Compacted):
        await store.list("/a/", limit=1, cursor=page.cursor)


# --- watches ----------------------------------------------------------------------------------------------


async def test_store_watch_begins_after_an_old_revision(store: Store) -> None:
    [one, two, three] = await make(store, "/a/1", "/a/2", "/a/3")
    events = await collect(store.watch("/a/", after=one), 2)
    assert events == [
        Event("/a/2", two, Entry("/a/2", b"/a/2", two)),
        Event("/a/3", three, Entry("/a/3", b"/a/3", three)),
    ]


async def test_store_watch_sees_what_comes_and_only_its_prefix(store: Store) -> None:
    page = await store.list("/a/")
    watching = asyncio.create_task(collect(store.watch("/a/", after=page.revision), 2))
    await make(store, "/b/1", "/a/1", "/a0", "/a/2")
    assert [event.key for event in await watching] == ["/a/1", "/a/2"]


async def test_store_watch_sees_every_change_of_a_key_and_its_deletion(store: Store) -> None:
    start = await now(store)
    [one] = await make(store, "/a/1")
    two = await store.replace("/a/1", b"x", one)
    await store.delete("/a/1")
    events = await collect(store.watch("/a/", after=start), 3)
    assert [event.entry and event.entry.value for event in events] == [b"/a/1", b"x", None]
    assert [event.revision for event in events[:2]] == [one, two]
    assert events[2].revision > events[1].revision


async def test_store_batch_holds_whole_transactions(store: Store) -> None:
    start = await now(store)
    await store.transact([], [Put(f"/a/{n:03}", b"") for n in range(MAX_OPERATIONS)])
    async with asyncio.timeout(SECONDS), aclosing(store.watch("/a/", after=start)) as watch:
        batch = await anext(watch)
    assert [event.key for event in batch] == [f"/a/{n:03}" for n in range(MAX_OPERATIONS)]
    assert len({event.revision for event in batch}) == 1


async def test_store_watch_has_nothing_missing_or_doubled_under_load(store: Store) -> None:
    start = await now(store)
    watching = asyncio.create_task(collect(store.watch("/a/", after=start), 300))
    await asyncio.gather(*(store.create(f"/a/{n}", b"") for n in range(300)))
    events = await watching
    assert sorted(event.key for event in events) == sorted(f"/a/{n}" for n in range(300))
    revisions = [event.revision for event in events]
    assert revisions == sorted(set(revisions))


async def test_store_two_watches_see_the_same_independently(store: Store) -> None:
    start = await now(store)
    first = asyncio.create_task(collect(store.watch("/a/", after=start), 2))
    second = asyncio.create_task(collect(store.watch("/a/", after=start), 3))
    await make(store, "/a/1", "/a/2")
    two = await first
    await make(store, "/a/3")
    assert (await second)[:2] == two


async def test_store_watch_below_the_compaction_raises(store: Store, compact: Compact) -> None:
    [one, _, three] = await make(store, "/a/1", "/a/2", "/a/3")
    compact(three)
    with pytest.raises(Compacted) as gap:
        await collect(store.watch("/a/", after=one), 1)
    assert gap.value.revision == three


async def test_store_watch_from_the_compaction_on_goes_on(store: Store, compact: Compact) -> None:
    [*_, two] = await make(store, "/a/1", "/a/2")
    compact(two)
    await make(store, "/a/3")
    assert [event.key for event in await collect(store.watch("/a/", after=two), 1)] == ["/a/3"]


async def test_store_deletion_at_the_compacted_revision_is_not_lost(store: Store, compact: Compact) -> None:
    """etcd 3.4.23 skips it silently (its issue 18089); the store must report a gap."""
    [one] = await make(store, "/a/1")
    await store.delete("/a/1")
    compact(one + 1)
    with pytest.raises(Compacted):
        await collect(store.watch("/a/", after=one), 1)


async def test_store_watch_beyond_the_stores_revision_sees_a_gap(etcd_store: Store) -> None:
    """The revision is beyond the store's, as after a restore of an older backup."""
    page = await etcd_store.list("/a/")
    with pytest.raises(Compacted):
        await collect(etcd_store.watch("/a/", after=page.revision + 1000), 1)


async def test_store_abandoned_watch_leaves_no_task(store: Store) -> None:
    start = await now(store)
    before = asyncio.all_tasks()
    watching = asyncio.create_task(collect(store.watch("/a/", after=start), 1))
    await make(store, "/b/1")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    left = asyncio.all_tasks() - before  # gRPC's own end a moment later
    assert not left or not (await asyncio.wait(left, timeout=SECONDS))[1]


# --- leases -----------------------------------------------------------------------------------------------


async def test_store_ended_lease_deletes_its_keys_and_wakes_watches(store: Store) -> None:
    start = await now(store)
    lease = await store.grant(1)
    await store.create("/a/1", b"", lease=lease)
    await store.create("/a/2", b"")
    [*_, last] = await collect(store.watch("/a/", after=start), 3)
    assert last == Event("/a/1", last.revision, None)
    assert keys(await store.list("/a/")) == ["/a/2"]
    assert await store.keep_alive(lease) is False


async def test_store_revoking_deletes_at_once_and_twice_is_nothing(store: Store) -> None:
    lease = await store.grant(60)
    await store.create("/a/1", b"", lease=lease)
    await store.revoke(lease)
    assert await store.get("/a/1") is None
    await store.revoke(lease)
    assert await store.keep_alive(lease) is False


async def test_store_lease_is_kept_alive(store: Store) -> None:
    lease = await store.grant(60)
    assert await store.keep_alive(lease) is True


async def test_store_key_leaves_its_lease_when_it_is_written_without(store: Store) -> None:
    lease = await store.grant(60)
    revision = await store.create("/a/1", b"", lease=lease)
    assert revision is not None
    assert await store.replace("/a/1", b"", revision) is not None
    await store.revoke(lease)
    assert await store.get("/a/1") is not None


async def test_store_key_moves_to_another_lease(store: Store) -> None:
    old, new = await store.grant(60), await store.grant(60)
    revision = await store.create("/a/1", b"", lease=old)
    assert revision is not None
    assert await store.replace("/a/1", b"", revision, lease=new) is not None
    await store.revoke(old)
    assert await store.get("/a/1") is not None
    await store.revoke(new)
    assert await store.get("/a/1") is None


async def test_store_nothing_is_written_on_a_lease_that_has_ended(store: Store) -> None:
    lease = await store.grant(60)
    await store.revoke(lease)
    with pytest.raises(StoreUnavailable) as refused:
        await store.transact([], [Put("/a/1", b""), Put("/a/2", b"", lease)])
    assert refused.value.code == "lease-ended"
    assert keys(await store.list("/a/")) == []


async def test_store_that_answers_can_be_pinged(store: Store) -> None:
    await store.ping()
