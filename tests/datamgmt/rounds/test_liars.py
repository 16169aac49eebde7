"""Dishonest nodes are outvoted or excluded, and named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mao_datamgmt.rounds.compute import VoteResult, VoteTask
from mao_shared import keys
from mao_shared.models import Announcement, Attestation, Round, VoteDefinition, round_id
from mao_shared.store import Put, Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.protocol import Write
from mao_shared.store.records import dump
from tests.datamgmt.world import writes
from tests.support.git import git

from .federation import Federation, Node, federation, tick


async def honest(fed: Federation, number: int, content: str) -> Round:
    """Assert that the tick's round is decided by the honest nodes' data, in one commit."""
    done = await fed.ended(number)
    assert done.phase == "decided", done.reason
    assert fed.show("a") == content
    assert fed.truth()[0] == done.id
    assert len(set(fed.truth())) == len(fed.truth())
    return done


async def named(node: Node, liar: str) -> str:
    """Wait for an alarm about the liar on a node, and return its text."""
    async with asyncio.timeout(60):
        while True:
            words = [alarm.detail for alarm in await node.alarms() if f"Node {liar} " in alarm.detail]
            if words:
                return words[0]
            await asyncio.sleep(0.01)


async def test_liar_rewrites_branch_after_open(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        await honest(fed, 0, "0")
        await fed["c"].collect(1, writes(a="lie"))
        await _opened(fed, 1)
        git(fed.master, "update-ref", "refs/heads/node-c", "refs/heads/node-c~1")
        await fed["a"].collect(1, writes(a="1"))
        await fed["b"].collect(1, writes(a="1"))
        done = await honest(fed, 1, "1")
        assert done.abstained["node-c"].reason == "rewritten"
        assert sorted(done.commits) == ["node-a", "node-b"]
        assert "was rewritten" in await named(fed["a"], "node-c")
        assert "was rewritten" in await named(fed["b"], "node-c")


async def test_liar_rewrites_branch_after_close(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:

        def rewrite(writes_: Any) -> None:
            if _closes(writes_):
                git(fed.master, "update-ref", "-d", "refs/heads/node-c")

        for node in fed.nodes:
            node.link.after = rewrite
        await fed.collect(0, [writes(a="0"), writes(a="0"), writes(a="lie")])
        done = await honest(fed, 0, "0")
        assert done.abstained["node-c"].reason == "rewritten"
        assert done.attempt == 2
        assert list(done.flagged) == ["node-c"]


async def test_liar_attests_another_tree(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        _corrupt(fed["c"])
        await fed.collect(0, [writes(a="0")] * 3)
        await honest(fed, 0, "0")
        assert "computed dddddddddd where node-a, node-b computed" in await named(fed["a"], "node-c")
        await fed.collect(1, [writes(a="1")] * 3)
        await honest(fed, 1, "1")


async def test_liar_pins_unannounced_commit(tmp_path: Path) -> None:
    """Close the round with an older commit of node-b, without attesting."""
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 2}) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        old = (await honest(fed, 0, "0")).commits["node-b"]
        await fed["a"].collect(1, writes(a="1"))
        await fed["b"].collect(1, writes(a="1"))
        opened = await _opened(fed, 1)
        records = Records(fed.store, keys.rounds_prefix("data"), Round)
        stored = await records.get(opened.id)
        assert stored is not None
        ours = {"node-a": old, "node-b": old, "node-c": old}
        fake = stored.record.changed(
            phase="closed", closed_by="node-c", closed_at=opened.opened_at, commits=ours, base=None
        )
        assert await records.replace(opened.id, fake, stored.revision) is not None
        done = await honest(fed, 1, "1")
        assert sorted(done.commits) == ["node-a", "node-b"]
        assert not done.flagged  # etcd does not record the writer, so no node is named
        told = [alarm.detail for node in fed.nodes for alarm in await node.alarms()]
        assert any("some node writes false records" in text for text in told)


async def test_liar_changes_announcement_after_close(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        old = (await honest(fed, 0, "0")).commits["node-c"]
        liar = Records(fed.store, f"{keys.peer_root('node-c')}announcements/", Announcement)
        change = _Change(fed, liar, old)
        for node in fed.nodes:
            node.link.after = lambda writes_: change.at(_closes(writes_))
        await fed.collect(1, [writes(a="1"), writes(a="1"), writes(a="lie")])
        done = await honest(fed, 1, "1")
        assert await change.done() == done.id


class _Change:
    """Replace an announcement once, as the round is being closed."""

    def __init__(self, fed: Federation, liar: Records[Announcement], commit: str) -> None:
        self._store, self._liar, self._commit = fed.store, liar, commit
        self._task: asyncio.Task[str] | None = None

    def at(self, round_: Round | None) -> None:
        if round_ is not None and self._task is None:
            self._task = asyncio.create_task(self._change(round_))

    async def _change(self, round_: Round) -> str:
        stored = await self._liar.get(f"data/{round_.id}")
        assert stored is not None
        changed = stored.record.model_copy(update={"commit": self._commit})
        await self._liar.replace(f"data/{round_.id}", changed, stored.revision)
        return round_.id

    async def done(self) -> str:
        assert self._task is not None
        return await self._task


async def test_liar_names_unattested_commit(tmp_path: Path) -> None:
    """Write an own commit into the round as agreed; nobody delivers it."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        first = await honest(fed, 0, "0")
        forger = _Forger(fed, str(first.commits["node-c"]))
        for node in fed.nodes:
            node.link.after = forger.at
        await fed.collect(1, [writes(a="1")] * 3)
        done = await honest(fed, 1, "1")
        assert done.commit != forger.commit
        assert not done.flagged
        told = [alarm.detail for node in fed.nodes for alarm in await node.alarms()]
        assert any("which no quorum has attested" in text for text in told)
        assert forger.forged


class _Forger:
    def __init__(self, fed: Federation, commit: str) -> None:
        self._store, self.commit, self.forged = fed.store, commit, False
        self._task: asyncio.Task[None] | None = None

    def at(self, writes_: Any) -> None:
        round_ = _closes(writes_)
        if round_ is not None and self._task is None:
            self._task = asyncio.create_task(self._forge(round_))

    async def _forge(self, round_: Round) -> None:
        entry = await self._store.get(keys.round("data", round_.id))
        assert entry is not None
        lie = round_.changed(commit=self.commit, tree=self.commit, attested=["node-a", "node-c"])
        self.forged = await self._store.replace(entry.key, dump(lie), entry.revision) is not None


def _closes(writes_: Sequence[Write]) -> Round | None:
    """Return the round that these writes close for the first time, if any."""
    for write in writes_:
        if isinstance(write, Put) and write.key.startswith(keys.all_rounds()):
            round_ = Round.model_validate_json(write.value)
            if (round_.phase, round_.attempt, round_.commit) == ("closed", 1, None):
                return round_
    return None


def _corrupt(node: Node) -> None:
    """Make a node's vote return another result."""
    assert node.manager is not None

    async def vote(_: VoteTask) -> VoteResult:
        return VoteResult(commit="d" * 40, tree="e" * 40)

    node.manager.rounds.executor.compute = vote


async def _opened(fed: Federation, number: int) -> Round:
    async with asyncio.timeout(60):
        while (found := await fed.round(number)) is None:  # noqa: ASYNC110 (as a node would see it)
            await asyncio.sleep(0.01)
        return found


async def test_liar_opens_round_for_itself(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        first = await honest(fed, 0, "0")
        alone = VoteDefinition(quorum="UNTIL", quorum_percentage=0)
        forged = Round(
            dataset="data",
            id=round_id(tick(1), first.pipeline, first.step),
            pipeline=first.pipeline,
            step=first.step,
            tick=tick(1),
            nodes=["node-c"],
            definition=alone,
            opened_by="node-c",
            opened_at=tick(1),
            deadline=datetime(2999, 1, 1, tzinfo=UTC),
        )
        assert await fed.store.create(keys.round("data", forged.id), dump(forged)) is not None
        await fed.collect(1, [writes(a="1"), writes(a="1"), writes(a="lie")])
        done = await honest(fed, 1, "1")
        assert sorted(done.nodes) == ["node-a", "node-b", "node-c"]
        assert done.definition == first.definition


async def test_liar_changes_vote_definition(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        await honest(fed, 0, "0")
        key = keys.registry("datasets", "data")
        there = await fed.store.get(key)
        assert there is not None
        changed = {
            **json.loads(there.value),
            "vote": {"weights": {"node-c": 1e6}, "quorum": "UNTIL", "quorum_percentage": 0},
        }
        assert await fed.store.replace(key, json.dumps(changed).encode(), there.revision) is not None

        await fed.collect(1, [writes(a="1"), writes(a="2"), writes(a="lie")])

        words = await _refusal(fed, 1, "node-a")
        assert "has not agreed" in words
        assert fed.show("a") == "0"


async def _refusal(fed: Federation, number: int, node: str) -> str:
    """Wait for the reason why a node does not attest, and return it."""
    async with asyncio.timeout(60):
        while True:
            found = await fed.round(number)
            key = "" if found is None else keys.attestation(node, "data", found.id)
            entry = await fed.store.get(key) if key else None
            if entry is not None and (words := Attestation.model_validate_json(entry.value).missing):
                return words
            await asyncio.sleep(0.01)
