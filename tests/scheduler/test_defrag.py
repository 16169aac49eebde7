"""etcd's file is defragmented when most of it is free and no tick is near."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mao_scheduler.defrag import MAX_IN_USE, MIB, MIN_GAIN, Defragmenter, is_worthwhile
from mao_shared.store import Delete, Examinable, Put, Store, StoreHealth
from tests.support.etcd import EtcdServer
from tests.support.waiting import eventually_answers

from .samples import START, ManualClock


@pytest.mark.parametrize(
    ("size", "in_use", "is_so"),
    [
        (144 * MIB, 12 * MIB, True),
        (144 * MIB, 100 * MIB, False),  # most of it is in use
        (MIN_GAIN, 1 * MIB, False),  # little to gain
        (40 * MIB, 0, False),  # an etcd that does not say
        (3 * MAX_IN_USE, MAX_IN_USE + 1, False),  # too long a pause
    ],
)
def test_defrag_is_worthwhile(size: int, in_use: int, is_so: bool) -> None:
    assert is_worthwhile(StoreHealth(1, size, in_use=in_use)) is is_so


@pytest.mark.etcd
@pytest.mark.parametrize(
    ("due", "done"), [(None, True), (timedelta(seconds=30), True), (timedelta(seconds=5), False)]
)
async def test_defrag_shrinks_store(
    etcd_server: EtcdServer, etcd_store: Store, clock: ManualClock, due: timedelta | None, done: bool
) -> None:
    assert isinstance(etcd_store, Examinable)
    keys = [f"/mao/nodes/node-1/ballast/{number}" for number in range(48)]
    for key in keys:
        await etcd_store.transact([], [Put(key, b"x" * MIB)])
    await etcd_store.transact([], [Delete(key) for key in keys])
    revision = (await etcd_store.examine()).revision
    etcd_server.call("kv/compaction", revision=revision, physical=True)
    next_due: datetime | None = None if due is None else START + due

    async def is_freed() -> bool:  # etcd counts anew when it next writes to the disk
        await etcd_store.transact([], [Put(keys[0], b"")])
        return (await etcd_store.examine()).in_use < 8 * MIB

    await eventually_answers(is_freed)
    before = (await etcd_store.examine()).size
    assert await Defragmenter(etcd_store, lambda: next_due, clock).check() is done
    after = (await etcd_store.examine()).size
    assert after < MIB + before / 8 if done else after == before
    assert await Defragmenter(etcd_store, lambda: next_due, clock).check() is False
