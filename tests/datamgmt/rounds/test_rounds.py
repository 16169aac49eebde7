"""Rounds of three nodes on one dataset: snapshots are announced, pinned, voted, attested and decided."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mao_git import Clone
from mao_shared import keys
from mao_shared.models import SharedDataset
from mao_shared.store import Records, open_store
from mao_shared.store.memory import MemoryStore
from mao_vote import audit_round, find_round, rank_nodes
from tests.datamgmt.world import writes
from tests.support.etcd import EtcdServer
from tests.support.git import git

from .federation import Federation, federation, tick

ROWS, CORRUPT, SEED = 400, 0.05, 11
TICKS = 10


def table(number: int, chance: random.Random | None = None) -> str:
    """Return the table of a tick; with `chance`, some rows are corrupted."""
    lines = ["id,size,name"]
    for row in range(ROWS):
        wrong = chance is not None and chance.random() < CORRUPT
        lines.append(
            f"{row},{row * 7 + number + (1000 if wrong else 0)},{'x' if wrong else 'artefact'}-{row}"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.etcd
async def test_rounds_ten_ticks_with_corrupting_node(tmp_path: Path, etcd_server: EtcdServer) -> None:
    """Ten rounds make one commit each; the corrupting node changes nothing and leads the ranking."""
    etcd_server.wipe()
    store, chance = open_store(etcd_server.endpoints), random.Random(SEED)
    try:
        async with federation(tmp_path, store, processes=True) as fed:
            for number in range(TICKS):
                text = table(number)
                bad = table(number, chance)
                assert bad != text
                await fed.collect(
                    number, [writes(data__csv=text), writes(data__csv=text), writes(data__csv=bad)]
                )
                done = await fed.ended(number)
                assert done.phase == "decided", done.reason
                assert fed.show("data/csv") == text.strip()
            await check(fed)
    finally:
        await store.close()


async def check(fed: Federation) -> None:
    rounds = await fed.rounds()
    assert [round_.phase for round_ in rounds] == ["decided"] * TICKS
    assert fed.truth() == [round_.id for round_ in reversed(rounds)]
    assert not any(round_.flagged for round_ in rounds)
    commits = git(fed.master, "rev-list", "--count", "ground-truth")
    assert commits == str(TICKS)
    context = fed["a"].manager.context  # type: ignore[union-attr]
    clone = Clone.open(context.data.clone("data"))
    clone.fetch(context.access)
    tip = clone.resolve("ground-truth")
    for round_ in rounds:
        decided = find_round(clone, tip, round_.id)
        assert decided.commit == round_.commit
        assert audit_round(clone, decided).ok
    ranked = rank_nodes(clone, tip, TICKS)
    assert [item.node for item in ranked.items if item.strange] == ["node-c"]
    assert ranked.items[0].node == "node-c"


async def test_rounds_none_for_a_single_node(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a"]) as fed:
        done = await fed["a"].collect(0, writes(a="0"))
        assert done.ground_truth == done.snapshot
        manager = fed["a"].manager
        assert manager is not None
        assert manager.rounds.announcer.waiting == []
        assert await fed.rounds() == []


async def test_rounds_missed_tick_abstains(tmp_path: Path) -> None:
    """A node whose tool fails abstains, so that the others need not wait for the deadline."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed["a"].collect(0, writes(a="0"))
        await fed["b"].collect(0, writes(a="0"))
        run_id = await fed["c"].begin(0)
        await fed["c"].fail(run_id)
        done = await fed.ended(0)
        assert (done.phase, done.abstained["node-c"].reason) == ("decided", "failed")
        assert "exit code 3" in done.abstained["node-c"].detail


async def test_rounds_two_steps_of_one_dataset(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        first = await fed.ended(0)
        for node in fed.nodes:
            await node.play(await node.begin(1, node.step(name="other")), writes(b="1"))
        second = await fed.ended(1, step="other")
        assert (second.phase, second.base) == ("decided", first.commit)
        assert (fed.show("a"), fed.show("b")) == ("0", "1")


async def test_rounds_snapshot_joins_round_opened_by_others(
    tmp_path: Path,
) -> None:
    """A late member runs the tick that it had missed."""
    async with federation(tmp_path, MemoryStore()) as fed:
        late = Records(fed["c"].own, keys.shared_prefix("node-c"), SharedDataset)
        await late.create("data", SharedDataset(dataset="data", since=tick(5)))
        await fed["c"].collect(0, writes(a="0"))
        await fed["a"].collect(0, writes(a="0"))
        await fed["b"].collect(0, writes(a="0"))
        assert len((await fed.ended(0)).commits) == 3


async def test_rounds_past_tick_decided_later_is_not_a_foreign_push(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        for number in (0, 2, 1, 3):
            await fed.collect(number, [writes(a=str(number))] * 3)
            assert (await fed.ended(number)).phase == "decided"
        assert fed.truth() == [(await fed.round(number)).id for number in (3, 1, 2, 0)]  # type: ignore[union-attr]
        assert not [
            alarm.detail for alarm in await fed["a"].alarms() if "somebody has pushed" in alarm.detail
        ]
