"""Retention in the federation store: what is deleted with time and what stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from mao_datamgmt.rounds.retention import (
    RoundRetention,
    ended_recently,
    expired_rounds,
    peer_records_expired,
    protected_rounds,
)
from mao_datamgmt.rounds.service import RoundService
from mao_datamgmt.rounds.validation import latest_decided
from mao_shared import keys
from mao_shared.errors import Forbidden
from mao_shared.models import Attestation, Round, round_id
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes
from tests.support.git import git
from tests.support.waiting import eventually_answers

from .federation import NODES, Federation, Node, federation
from .test_decide import ID, TICK, X, Y, a_round

DAY = timedelta(days=1)
OLD = (
    -3 * 24 * 60
)  # number of a tick three days ago; its round is not rechecked by nodes whose clocks are right


class Later:
    """The system clock with an offset."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


def retention(node: Node, after: timedelta, keep: int = 1000) -> RoundRetention:
    assert node.manager is not None
    of = node.manager.rounds
    context = replace(node.manager.context, clock=Later(after))
    return RoundRetention(context, of.mirror, of.peer_records, timedelta(days=90), keep)


async def later(fed: Federation, names: str = "abc", after: timedelta = 3 * DAY, keep: int = 1000) -> None:
    """Run retention on nodes at a later time, once they have seen every record."""
    for name in names:
        manager = fed[name].manager
        assert manager is not None
        of = manager.rounds
        await eventually_answers(partial(_has_seen, fed.store, of))
        await retention(fed[name], after, keep).once()


async def _has_seen(store: Store, of: RoundService) -> bool:
    rounds = {name for name, stored in of.mirror.items() if stored.record.ended_at is not None}
    there = (await store.list(keys.all_rounds())).entries
    known = {round_id for round_id, _ in of.peer_records.mirror.items()}
    said = (await store.list(keys.all_peers())).entries
    names = {entry.key.removeprefix(keys.all_peers()) for entry in said}
    return known == names and rounds == {entry.key.removeprefix(keys.all_rounds()) for entry in there}


async def spoken(store: Store) -> set[tuple[str, str, str]]:
    """Return node, kind and round of every statement about rounds."""
    entries = (await store.list(keys.all_peers())).entries
    split = [keys.split_peer(entry.key) for entry in entries]
    return {(node, parts[0], parts[2]) for node, parts in split if len(parts) == 3}


async def collected(fed: Federation, *numbers: int) -> list[Round]:
    found = []
    for number in numbers:
        await fed.collect(number, [writes(a=str(number))] * 3)
        found.append(await fed.ended(number))
    return found


def test_peer_records_expire_a_day_after_the_round() -> None:
    done = a_round(phase="decided", ended_at=TICK)
    assert not peer_records_expired(ID, a_round(), TICK + 100 * DAY)
    assert not peer_records_expired(ID, done, TICK + DAY)
    assert peer_records_expired(ID, done, TICK + 1.1 * DAY)
    assert not peer_records_expired(ID, None, TICK + 30 * DAY)
    assert peer_records_expired(ID, None, TICK + 32 * DAY)
    assert peer_records_expired(ID, None, TICK - 2 * DAY)


def test_expired_rounds_by_age_and_number() -> None:
    rounds = [
        a_round(id=f"r{day}", tick=TICK + day * DAY, phase="decided" if day < 3 else "undecided")
        for day in range(6)
    ]
    live = a_round(id="live", tick=TICK - 100 * DAY)
    everything = [*rounds, live]
    assert expired_rounds(everything, TICK - DAY, 100) == []
    assert sorted(expired_rounds(everything, TICK + 5 * DAY, 100)) == [
        "data/r0",
        "data/r1",
        "data/r3",
        "data/r4",
    ]
    assert sorted(expired_rounds(everything, TICK - DAY, 2)) == ["data/r0", "data/r1", "data/r3"]


@pytest.mark.parametrize("ended", [TICK - 2 * DAY, datetime(2999, 12, 31, tzinfo=UTC)])
def test_ended_recently(ended: datetime) -> None:
    assert ended_recently(a_round(phase="undecided", ended_at=TICK), TICK + 0.9 * DAY)
    assert not ended_recently(a_round(phase="undecided").changed(ended_at=ended), TICK)


def decided(day: int, step: str = "collect", **changes: object) -> Round:
    tick = TICK + day * DAY
    fields = {"id": round_id(tick, "crawl", step), "tick": tick, "step": step, "phase": "decided"}
    return a_round(**{**fields, "commit": X, "tree": X, "base": X, **changes})


def upheld(round_: Round) -> dict[str, Attestation]:
    vote = Attestation(dataset="data", round=round_.id, commit=X, tree=X, attested_at=round_.tick)
    return dict.fromkeys(round_.nodes[: 0 if round_.opened_by == "liar" else 2], vote)


def test_protected_rounds_latest_of_each_step() -> None:
    rounds = [decided(0, "other"), decided(1), decided(2), decided(9, opened_by="liar")]
    assert protected_rounds(rounds, upheld, TICK + 3 * DAY) == {rounds[0].id, rounds[2].id}
    assert protected_rounds(rounds, upheld, TICK + 99 * DAY) == {rounds[2].id}
    assert protected_rounds([], upheld, TICK) == set()
    late = decided(0, commit=Y, tree=Y)  # an old tick that was decided after all others
    votes = {Y: {node: upheld(rounds[1])["a"].model_copy(update={"commit": Y}) for node in ("a", "b")}}
    found = protected_rounds(
        [*rounds, late], lambda round_: votes.get(str(round_.commit)) or upheld(round_), TICK + 99 * DAY
    )
    assert found == {rounds[2].id, late.id}
    misnamed = decided(5).changed(id="z")
    assert latest_decided([misnamed, decided(1)], upheld) == {("crawl", "collect"): decided(1)}


async def test_retention_removes_own_peer_records(
    tmp_path: Path,
) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first, last = await collected(fed, OLD, OLD + 1)
        await later(fed, after=0.9 * DAY)
        assert {(node, of) for node, _, of in await spoken(fed.store)} >= {
            (node, round_.id) for node in NODES for round_ in (first, last)
        }
        await later(fed, "a")
        left = {(node, of) for node, _, of in await spoken(fed.store)}
        assert left == {(node, round_.id) for node in NODES for round_ in (first, last)} - {
            ("node-a", first.id)
        }
        await later(fed, "bc")
        assert {of for _, _, of in await spoken(fed.store)} == {last.id}


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    async def delete(self, key: str, revision: int | None = None) -> bool:
        self.deleted.append(key)
        return await super().delete(key, revision)


async def test_retention_deletes_only_what_is_there(tmp_path: Path) -> None:
    store = Counting()
    async with federation(tmp_path, store) as fed:
        await collected(fed, OLD, OLD + 1)
        await later(fed, "aa")
        assert len(store.deleted) == len(set(store.deleted)) <= 2
        assert all(key.startswith(keys.peer_root("node-a")) for key in store.deleted)


async def test_retention_keeps_what_shows_a_foreign_push(
    tmp_path: Path,
) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await collected(fed, OLD)
        await later(fed, after=8 * DAY)
        git(fed.master, "update-ref", "refs/heads/ground-truth", "refs/heads/node-b")
        await collected(fed, OLD + 1)
        alarms = [alarm.detail for node in fed.nodes for alarm in await node.alarms()]
        assert any("somebody has pushed to it" in a for a in alarms)


async def test_retention_round_stays_while_peer_records_mention_it(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        _, second = await collected(fed, OLD, OLD + 1)
        await later(fed, "ab", keep=1)
        assert len(await fed.rounds()) == 2
        await later(fed, "c", keep=1)
        await later(fed, "a", keep=1, after=timedelta(0))
        assert len(await fed.rounds()) == 2, "that it has ended is not seen by all yet"

        async def only_second_is_left() -> bool:
            await later(fed, "c", keep=1)  # again: a node that was still computing attests after the end
            await later(fed, "a", keep=1)
            return [round_.id for round_ in await fed.rounds()] == [second.id]

        await eventually_answers(only_second_is_left)


class NotForOthers(MemoryStore):
    """Refuse writes under another node's prefix, as etcd does for a member."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        self.strict = True

    async def delete(self, key: str, revision: int | None = None) -> bool:
        if self.strict and key.startswith(keys.peer_root("node-c")):
            self.refused += 1
            raise Forbidden("not yours")
        return await super().delete(key, revision)


async def test_retention_removes_peer_records_of_removed_node(tmp_path: Path) -> None:
    store = NotForOthers()
    async with federation(tmp_path, store) as fed:
        await collected(fed, OLD, OLD + 1, OLD + 2)
        await fed["c"].stop()
        await later(fed, "ab")
        assert store.refused == 0, "it still belongs to the dataset, and does it itself"
        store.strict = False
        await store.delete(keys.part("node-c", "data"))
        store.strict = True
        await later(fed, "a")
        assert store.refused == 1, "a node that may not is told once"
        store.strict = False
        await later(fed, "b")
        assert len({of for node, _, of in await spoken(store) if node == "node-c"}) == 1
        await later(fed, "a", keep=1)
        assert len(await fed.rounds()) == 1
