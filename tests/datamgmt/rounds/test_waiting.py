"""Rounds in the API during an outage of the federation: the age of the data, and waiting steps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mao_datamgmt.routes.rounds import list_live
from mao_shared import keys, request_context
from mao_shared.models.federation import Contact, Link
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from mao_shared.web.dependencies import PageQuery
from tests.datamgmt.conftest import api_on
from tests.datamgmt.world import NODE, writes
from tests.support.waiting import eventually

from .federation import federation

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def test_live_rounds_count_waiting_snapshots(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        manager = fed["a"].manager
        assert manager is not None
        await fed.collect(0, [writes(a="0")] * 3)
        await fed.ended(0)
        rounds = manager.rounds.mirror
        await eventually(lambda: [round_.record.phase for _, round_ in rounds.items()] == ["decided"])
        await eventually(lambda: not manager.rounds.announcer.waiting)
        fed["a"].link.cut()
        for number in (1, 2):
            await fed.collect(number, [writes(a=str(number))])
        await eventually(lambda: len(manager.rounds.announcer.waiting) == 2)
        page = PageQuery(limit=10, cursor=None)
        told = await list_live(manager, page, phase="live")
        assert (told.items, told.waiting) == ([], 2)
        assert (await list_live(manager, page, dataset="other")).waiting == 0


def test_live_rounds_age_header(tmp_path: Path) -> None:
    """Live rounds are served from memory, so only the header shows their age."""
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        assert request_context.AS_OF_HEADER not in api.get("/rounds").headers
        link = Link(federation="lab", id="1", node=NODE, user="n@1", endpoints=["h:1"], joined_at=NOW)
        api.run(store.create(keys.contact(NODE), dump(Contact(federation="1", as_of=NOW))))
        api.run(store.create(keys.link(NODE), dump(link)))
        for _ in range(200):  # until the watch has noticed the cut
            told = api.get("/rounds")
            if request_context.AS_OF_HEADER in told.headers:
                break
        assert (told.status_code, told.headers[request_context.AS_OF_HEADER]) == (200, "2026-01-31T12:00:00Z")
