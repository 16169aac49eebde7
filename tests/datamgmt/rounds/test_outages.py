"""With links cut, nodes absent and processes killed, rounds are decided once or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mao_shared.models import Round
from mao_shared.store import open_store
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import runs_on, writes
from tests.support.etcd import EtcdServer
from tests.support.git import git
from tests.support.waiting import eventually

from .federation import Federation, federation

TICKS = 10


def once(fed: Federation, rounds: list[Round]) -> None:
    """Assert that each decided round made exactly one ground-truth commit, in the order of ticks."""
    decided = [round_ for round_ in rounds if round_.phase == "decided"]
    assert fed.truth() == [round_.id for round_ in reversed(decided)]


async def test_outages_federation_away_for_ten_ticks(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        await fed.ended(0)
        for node in fed.nodes:
            node.link.cut()
        for number in range(1, 1 + TICKS):
            await fed.collect(number, [writes(a=str(number))] * 3)
        assert fed.truth() == [(await fed.rounds())[0].id]
        for node in fed.nodes:
            assert len(runs_on(fed.master, node.name)) == 1 + TICKS
            node.link.mend()
        rounds = [await fed.ended(number) for number in range(1 + TICKS)]
        assert {round_.phase for round_ in rounds} == {"decided"}, [round_.reason for round_ in rounds]
        assert all(len(round_.commits) == 3 for round_ in rounds[1:])
        once(fed, rounds)
        assert fed.show("a") == str(TICKS)


@pytest.mark.etcd
async def test_outages_store_away_and_all_nodes_restarted(tmp_path: Path, etcd_server: EtcdServer) -> None:
    etcd_server.wipe()
    store = open_store(etcd_server.endpoints)
    try:
        async with federation(tmp_path, store) as fed:
            await fed.collect(0, [writes(a="0")] * 3)
            await fed.ended(0)
            etcd_server.kill()
            for number in range(1, 4):
                await fed.collect(number, [writes(a=str(number))] * 3)
            for node in fed.nodes:
                await node.stop()
                await node.start()
            etcd_server.start()
            rounds = [await fed.ended(number) for number in range(4)]
            assert {round_.phase for round_ in rounds} == {"decided"}, [round_.reason for round_ in rounds]
            once(fed, rounds)
    finally:
        await store.close()


async def test_outages_node_cut_off_catches_up(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 2}) as fed:
        away = fed["c"]
        away.link.cut()
        for number in range(3):
            await fed.collect(number, [writes(a=str(number))] * 3)
            done = await fed.ended(number)
            assert (done.phase, done.abstained["node-c"].reason) == ("decided", "late")
        away.link.mend()
        await fed.collect(3, [writes(a="3")] * 3)
        done = await fed.ended(3)
        assert sorted(done.commits) == ["node-a", "node-b", "node-c"]
        assert not done.flagged
        once(fed, await fed.rounds())


async def test_outages_too_few_snapshots_then_next_round(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        await fed["a"].collect(0, writes(a="0"))
        done = await fed.ended(0)
        assert done.phase == "undecided"
        assert "1 of 3 nodes submitted a snapshot" in str(done.reason)
        await fed.collect(1, [writes(a="1")] * 3)
        assert (await fed.ended(1)).phase == "decided"
        once(fed, await fed.rounds())
        await eventually(lambda: fed["b"].manager is not None)
        assert [alarm.kind for alarm in await fed["a"].alarms()] == ["round"]


async def test_outages_remote_away_between_snapshot_and_vote(tmp_path: Path) -> None:
    """The round waits for the remote instead of its deadline, and nothing is lost."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        await fed.ended(0)
        hidden = tmp_path / "hidden.git"
        await fed["a"].collect(1, writes(a="1"))
        await fed["b"].collect(1, writes(a="1"))
        run = await fed["c"].begin(1)
        fed["c"].link.cut()
        await fed["c"].play(run, writes(a="1"))
        fed.master.rename(hidden)
        fed["c"].link.mend()
        await asyncio.wait_for(_said_by_all(fed, 1), 60)
        hidden.rename(fed.master)
        assert (await fed.ended(1)).phase == "decided"
        once(fed, await fed.rounds())


async def _said_by_all(fed: Federation, number: int) -> None:
    manager = fed["a"].manager
    assert manager is not None
    found = await fed.round(number)
    assert found is not None
    await eventually(lambda: len(manager.rounds.peer_records.announced("data", found.id)) == 3)


async def test_outages_remote_refuses_ground_truth_until_it_can(
    tmp_path: Path,
) -> None:
    """The nodes' own branches are pushed meanwhile."""
    async with federation(tmp_path, MemoryStore()) as fed:
        begin = git(fed.master, "commit-tree", git(fed.master, "mktree", feed=""), "-m", "x")
        git(fed.master, "update-ref", "refs/heads/ground-truth/old", begin)
        await fed.collect(0, [writes(a="0")] * 3)
        assert all(len(runs_on(fed.master, node.name)) == 1 for node in fed.nodes)

        def told() -> list[str]:
            current = [
                condition
                for node in fed.nodes
                if node.manager
                for condition in node.manager.conditions.current()
            ]
            return [
                condition.detail
                for condition in current
                if (condition.name, condition.subject) == ("item-failing", "rounds/data")
            ]

        await eventually(lambda: any("ground-truth/old" in detail for detail in told()), 20)
        git(fed.master, "update-ref", "-d", "refs/heads/ground-truth/old")
        assert (await fed.ended(0)).phase == "decided"
        await eventually(lambda: told() == [], 20)
