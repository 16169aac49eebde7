"""The condition `store-reset` on lost, rewound or exchanged data, across restarts, and accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mao_registry import store_identity
from mao_registry.store_identity import (
    ObservedIdentity,
    SavedIdentity,
    StoreIdentity,
    find_mismatch,
    read,
    write,
)
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import StoreUnavailable
from mao_shared.store import Store, open_store
from mao_shared.store.memory import MemoryStore
from tests.support.etcd import EtcdServer, running_etcd
from tests.support.stores import UnavailableStore

NODE = "node-1"
pytestmark = pytest.mark.etcd


def identity(store: Store, file: Path, conditions: Conditions | None = None) -> StoreIdentity:
    """Return the identity of a registry that has just started."""
    return StoreIdentity(NODE, store, file, conditions or Conditions())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "federation" / "store.json"


@pytest.fixture
def etcd() -> Iterator[EtcdServer]:
    with running_etcd() as server:
        yield server


@asynccontextmanager
async def opened(etcd: EtcdServer) -> AsyncIterator[Store]:
    store = open_store(etcd.endpoints)
    try:
        yield store
    finally:
        await store.close()


async def fault(store: Store, file: Path) -> str:
    """Return the condition of a registry that has just started; empty if the store is unchanged."""
    conditions = Conditions()
    well = await identity(store, file, conditions).check()
    told = conditions.current()
    assert well == (not told)
    assert all((condition.name, condition.state) == ("store-reset", "failed") for condition in told)
    return told[0].detail if told else ""


@pytest.mark.parametrize(
    ("known", "seen", "word"),
    [
        (None, ObservedIdentity(None, 1), None),
        (None, ObservedIdentity("w", 1), None),
        (SavedIdentity("w", 5), ObservedIdentity("w", 5), None),
        (SavedIdentity("w", 5), ObservedIdentity("w", 9), None),
        (SavedIdentity("w", 5), ObservedIdentity(None, 9), "are gone"),
        (SavedIdentity("w", 5), ObservedIdentity("v", 9), "Another"),
        (SavedIdentity("w", 5), ObservedIdentity("w", 4), "set back"),
        (SavedIdentity("w", 5, "n"), ObservedIdentity("w", 9), None),
        (SavedIdentity("w", 5, "lab"), ObservedIdentity(None, 9), "that of the node 'lab'"),
        (SavedIdentity("w", 5, "lab"), ObservedIdentity("w", 9), "that of the node 'lab'"),
    ],
)
def test_find_mismatch(known: SavedIdentity | None, seen: ObservedIdentity, word: str | None) -> None:
    found = find_mismatch(known, seen, "n")
    assert (found is None) == (word is None)
    assert (word or "") in (found or "")


async def test_store_identity_first_and_later_starts(file: Path) -> None:
    store = MemoryStore()
    for _ in range(3):
        assert await fault(store, file) == ""
        await store.create(f"/mao/{store.revision}", b"x")
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0


async def test_store_identity_adopts_existing_store(file: Path) -> None:
    store = MemoryStore()
    await store.create("/mao/nodes/node-1/runs/r", b"{}")
    assert await fault(store, file) == ""


async def test_store_identity_lost_data_until_accepted(etcd: EtcdServer, file: Path) -> None:
    async with opened(etcd) as store:
        assert await fault(store, file) == ""
    etcd.kill()
    etcd.remove_data()
    etcd.start()
    async with opened(etcd) as store:
        assert "gone" in await fault(store, file)
        assert "gone" in await fault(store, file)
        assert await store.get(keys.store_identity(NODE)) is None  # it is not adopted on the quiet
        conditions = Conditions()
        accepting = identity(store, file, conditions)
        await accepting.check()
        await accepting.accept()
        assert conditions.current() == []
        assert await fault(store, file) == ""


async def test_store_identity_detects_older_revision(etcd: EtcdServer, file: Path) -> None:
    async with opened(etcd) as store:
        conditions = Conditions()
        watching = identity(store, file, conditions)
        assert await watching.check()
    etcd.kill()
    etcd.back_up_data()
    etcd.start()
    async with opened(etcd) as store:
        for number in range(20):
            await store.create(f"/mao/x/{number}", b"x")
        assert await fault(store, file) == ""  # a registry that starts notes how far the store has got
    etcd.kill()
    etcd.restore_data()
    etcd.start()
    async with opened(etcd) as store:
        assert "set back" in await fault(store, file)
        await identity(store, file).accept()
        assert await fault(store, file) == ""


async def test_store_identity_detects_setback_between_checks(file: Path) -> None:
    store, conditions = MemoryStore(), Conditions()
    watching = identity(store, file, conditions)
    assert await watching.check()
    noted = read(file)
    for number in range(20):
        await store.create(f"/mao/x/{number}", b"x")
    assert await watching.check()
    assert read(file) == noted  # too soon to write it again
    store.revision -= 5
    assert not await watching.check()
    assert "set back" in conditions.current()[0].detail
    await watching.accept()
    assert await watching.check()


async def test_store_identity_detects_other_store(file: Path) -> None:
    assert await fault(MemoryStore(), file) == ""
    other = MemoryStore()
    await other.create(keys.store_identity(NODE), b"a word of its own")
    assert "Another" in await fault(other, file)


async def test_store_identity_clears_after_restore(file: Path) -> None:
    store, conditions = MemoryStore(), Conditions()
    assert await fault(store, file) == ""
    assert "gone" in await fault(MemoryStore(), file)
    assert await identity(store, file, conditions).check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"word": "w"}', '{"word": "w", "revision": "x"}'])
async def test_store_identity_ignores_torn_file(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    assert read(file) is None
    assert await fault(MemoryStore(), file) == ""
    assert read(file) is not None


async def test_store_identity_unaffected_by_outage(file: Path) -> None:
    store, conditions = UnavailableStore(), Conditions()
    write(file, SavedIdentity("w", 1))
    store.away = True
    with pytest.raises(StoreUnavailable):
        await identity(store, file, conditions).check()
    assert conditions.current() == []


async def test_store_identity_accepts_nothing_that_is_not_on_disk(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await identity(MemoryStore(), file).check()
    other, conditions = MemoryStore(), Conditions()
    known = identity(other, file, conditions)

    def full(path: Path, saved: SavedIdentity) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_identity, "write", full)
        with pytest.raises(OSError, match="No space"):
            await known.accept()
    assert not await known.check(), "the next start would report it again"
    await known.accept()
    assert await known.check()
    assert await fault(other, file) == ""
