"""The state of rounds in the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.rounds.reporting import RoundOutcomes
from mao_shared import keys
from mao_shared.models import Attestation, Round, round_id
from mao_shared.reconcile import Mirror
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.datamgmt.conftest import Api, api_on
from tests.support.waiting import eventually

from .test_decide import ID, NODES, OF, TICK, X, a_round, attests, said


def put(api: Api, store: MemoryStore, *rounds: Round) -> None:
    for round_ in rounds:
        api.run(store.create(keys.round(round_.dataset, round_.id), dump(round_)))


def seen(api: Api, count: int, **asked: Any) -> list[dict[str, Any]]:
    """Wait until `count` rounds are listed, and return them."""
    listed: list[dict[str, Any]] = []

    def there() -> bool:
        return len(listed) >= count

    async def look() -> None:
        await eventually(there)

    for _ in range(200):
        listed[:] = api.get("/rounds", params=asked).json()["items"]
        if there():
            break
    api.run(look())
    return listed


def test_live_round_shows_announcements_and_attestations(tmp_path: Path) -> None:
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        api.run(store.create(keys.announcement("a", "data", ID), dump(said("a", X).record)))
        api.run(store.create(keys.announcement("b", "data", ID), dump(said("b", None).record)))
        vote = Attestation(**{**attests(X).record.model_dump(), "attempt": 1})
        api.run(store.create(keys.attestation("a", "data", ID), dump(vote)))
        put(api, store, a_round())
        [found] = seen(api, 1)
        assert (found["id"], found["phase"], found["needed_nodes"]) == (ID, "open", 2)
        assert found["announced"] == {"a": X, "b": None}
        assert found["silent"] == ["c"]
        assert found["computed"] == {"a": X}


def test_live_round_waits_for(tmp_path: Path) -> None:
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        later = TICK + timedelta(minutes=1)
        second = a_round(id=round_id(later, "crawl", "collect"), tick=later)
        for node in NODES:
            word = said(node, X, round=second.id, tick=later).record
            api.run(store.create(keys.announcement(node, "data", second.id), dump(word)))
        lacking = attests(None, "its operator has not agreed").record
        api.run(store.create(keys.attestation("b", "data", ID), dump(lacking)))
        put(api, store, a_round(phase="closed", closed_by="a", closed_at=TICK), second)
        waiting, shut = seen(api, 2)
        assert waiting["waits_for"] == ID
        assert shut["missing"] == {"b": "its operator has not agreed"}
        assert shut["waits_for"] is None


def test_page_of_rounds_newest_first_with_filters(tmp_path: Path) -> None:
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        ticks = [TICK + timedelta(days=day) for day in range(4)]
        rounds = [a_round(id=round_id(tick, "crawl", "collect"), tick=tick) for tick in ticks]
        other = a_round(**{**OF, "dataset": "other", "phase": "undecided", "reason": "few", "ended_at": TICK})
        put(api, store, *rounds, other)
        seen(api, 5)
        first = api.get("/rounds", params={"limit": 3, "dataset": "data"}).json()
        second = api.get("/rounds", params={"limit": 3, "dataset": "data", "cursor": first["cursor"]}).json()
        ids = [item["id"] for item in first["items"] + second["items"]]
        assert ids == [round_.id for round_ in reversed(rounds)]
        assert second["cursor"] is None
        assert [round_["dataset"] for round_ in seen(api, 1, phase="undecided")] == ["other"]
        assert len(seen(api, 4, phase="live")) == 4
        assert api.get("/rounds", params={"phase": "strange"}).status_code == 422
        assert api.get("/rounds", params={"dataset": "../x"}).status_code == 422
        assert set(NODES) == set(first["items"][0]["nodes"])


@pytest.mark.parametrize("outcome", ["decided", "undecided"])
def test_outcomes_count_rounds_seen_live_once(outcome: str) -> None:
    mirror = Mirror(Records(MemoryStore(), keys.all_rounds(), Round))
    counted: list[str] = []
    RoundOutcomes(mirror, counted.append)
    mirror.note("data/old", a_round(id="old", phase=outcome), 1)
    mirror.note("data/new", a_round(id="new"), 2)
    mirror.note("data/new", a_round(id="new", phase="closed"), 3)
    assert counted == []
    mirror.note("data/new", a_round(id="new", phase=outcome), 4)
    mirror.note("data/new", a_round(id="new", phase=outcome), 5)
    assert counted == [outcome]
