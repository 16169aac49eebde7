"""The index of rounds by dataset follows every change."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mao_datamgmt.rounds.peer_records import PeerRecords
from mao_datamgmt.rounds.view import RoundIndex
from mao_shared import keys
from mao_shared.models import Announcement, Round
from mao_shared.reconcile import Mirror
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.waiting import eventually

from .test_decide import ID, TICK, a_round


async def test_index_follows_mirror() -> None:
    mirror = Mirror(Records(MemoryStore(), keys.all_rounds(), Round))
    mirror.note("data/a", a_round(id="a"), 1)
    known, gone = RoundIndex(mirror), list[str]()
    known.on_removed(lambda round_: gone.append(round_.id))
    seen: list[list[str]] = []
    mirror.subscribe(lambda _: seen.append(list(known.of("data"))))
    mirror.note("data/b", a_round(id="b"), 2)
    mirror.note("else/c", a_round(id="c"), 3)
    mirror.note("data/b", a_round(id="b", phase="closed"), 4)
    assert [sorted(nodes) for nodes in seen] == [["a", "b"], ["a", "b"], ["a", "b"]]
    assert known.of("data")["b"].record.phase == "closed"
    assert (sorted(known.datasets()), gone) == (["data", "else"], [])


async def test_index_removed_round() -> None:
    store = MemoryStore()
    mirror = Mirror(Records(store, keys.all_rounds(), Round))
    known, gone = RoundIndex(mirror), list[str]()
    known.on_removed(lambda round_: gone.append(round_.id))
    await store.create(keys.round("data", "a"), dump(a_round(id="a")))
    task = asyncio.create_task(mirror.run())
    await eventually(lambda: "a" in known.of("data"))
    before = known.of("data")
    await store.delete(keys.round("data", "a"))
    await eventually(lambda: not known.of("data"))
    assert (list(before), known.datasets(), gone) == (["a"], [], ["a"])
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_peer_records_by_dataset() -> None:
    store = MemoryStore()
    heard = PeerRecords(store)
    task = asyncio.create_task(heard.mirror.run())
    for dataset in ("data", "else"):
        for node in ("node-a", "node-b"):
            said = Announcement(
                dataset=dataset,
                round=ID,
                pipeline="crawl",
                step="collect",
                tick=TICK,
                run="r",
                commit="a" * 40,
                announced_at=TICK,
            )
            await store.create(keys.announcement(node, dataset, ID), dump(said))
    await eventually(lambda: len(heard.announced("else", ID)) == 2)
    assert (heard.round_ids("data"), heard.datasets()) == ([ID], {"data", "else"})
    for node in ("node-a", "node-b"):
        assert heard.mentions(f"data/{ID}")
        await store.delete(keys.announcement(node, "data", ID))
    await eventually(lambda: not heard.mentions(f"data/{ID}"))
    assert (heard.round_ids("data"), heard.announced_commits("data", ID), heard.datasets()) == (
        [],
        {},
        {"else"},
    )
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
