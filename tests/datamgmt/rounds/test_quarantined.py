"""A quarantined snapshot does not vote; once it is accepted, it does if its round is still open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mao_datamgmt.datasets.quarantine import Decision
from mao_shared import keys
from mao_shared.models import Announcement, StepRun
from mao_shared.models.check import Check
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes
from tests.support.git import file_at, git

from .federation import PATIENCE, Federation, Node, federation

ENOUGH = Check(name="enough", file="rows.csv", at_least=2, on_failure="quarantine")
GOOD, FEW = "id,v\n1,a\n2,b\n", "id,v\n1,z\n"


def checked(node: Node) -> StepRun:
    one = node.step()
    return one.model_copy(update={"spec": one.spec.model_copy(update={"checks": [ENOUGH]})})


async def collect(node: Node, number: int, text: str) -> str:
    run = await node.begin(number, checked(node))
    await node.play(run, writes(**{"rows.csv": text, "node": str(number)}))
    return run


async def test_quarantined_snapshot_abstains_and_the_others_decide(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        for name in "ab":
            await collect(fed[name], 0, GOOD)
        held = await collect(fed["c"], 0, FEW)
        done = await fed.ended(0)
        assert done.phase == "decided", done.reason
        assert set(done.commits) == {"node-a", "node-b"}
        assert done.abstained["node-c"].reason == "failed"
        assert done.abstained["node-c"].detail == "quarantined: enough: 1 row, at least 2 are expected"
        assert fed.show("rows.csv") == GOOD.strip()
        assert file_at(fed.master, "quarantine/node-c:rows.csv") == FEW.strip()
        assert (await fed["c"].until(held, lambda run: True)).steps[0].quarantined
        # a later round starts from the node's branch, which has nothing of it
        for name in "abc":
            await collect(fed[name], 1, GOOD.replace("b", "c"))
        assert set((await fed.ended(1)).commits) == {"node-a", "node-b", "node-c"}
        assert FEW.strip() not in git(fed.master, "log", "-p", "--format=", "node-c")


async def test_accepted_snapshot_votes_while_its_round_is_open(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 600}) as fed:
        await collect(fed["a"], 0, GOOD)
        held = await collect(fed["c"], 0, FEW)
        await until_announced(fed, "node-c", None)
        manager = fed["c"].manager
        assert manager is not None
        await manager.quarantine.accept("data", held, Decision("accepted", "Ada"))
        accepted = await fed["c"].until(held, lambda run: run.steps[0].pushed)
        commit = accepted.steps[0].snapshot
        assert commit == git(fed.master, "rev-parse", "node-c")
        await until_announced(fed, "node-c", commit)
        await collect(fed["b"], 0, GOOD)
        done = await fed.ended(0)
        assert done.phase == "decided", done.reason
        assert done.commits["node-c"] == commit
        assert done.abstained == {}


async def until_announced(fed: Federation, node: str, commit: str | None) -> None:
    """Wait until a node has announced this commit, or that it abstains."""
    records = Records(fed.store, f"{keys.peer_root(node)}announcements/", Announcement)
    async with asyncio.timeout(PATIENCE):
        while [found.record.commit for found in await records.all()] != [commit]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
