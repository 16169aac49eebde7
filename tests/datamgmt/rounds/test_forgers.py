"""A member that forges a round's record, or writes garbage under its own prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.rounds import controller
from mao_datamgmt.rounds.executor import RoundExecutor
from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Round, round_id
from mao_shared.store import Put
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.datamgmt.world import Tool, writes
from tests.support.git import git

from .federation import NODES, PIPELINE, STEP, Federation, federation, tick

HONEST, LIE = 200, -999


@pytest.fixture(autouse=True)
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the settling time, as for nodes that have been up for a while."""
    monkeypatch.setattr(controller, "SETTLE_TIME", timedelta(0))


def price(value: float) -> Tool:
    return writes(**{"a.csv": f"id,price\n1,{value}\n"})


async def first_round(fed: Federation) -> Round:
    await fed.collect(0, [price(100)] * 3)
    return await fed.ended(0)


def forged(fed: Federation, **changes: Any) -> Round:
    """Write the next tick's round as a member can before any node has collected."""
    now = datetime.now(UTC)
    fields = {"pipeline": PIPELINE, "step": STEP, "tick": tick(1), "nodes": NODES, "opened_by": "node-c"}
    right = Round(dataset="data", id=name(1), opened_at=now, deadline=now + timedelta(hours=1), **fields)
    return right.changed(**changes)


def name(number: int) -> str:
    return round_id(tick(number), PIPELINE, STEP)


async def put(fed: Federation, key: str, value: bytes) -> None:
    there = await fed.store.get(key)
    done = await (
        fed.store.create(key, value) if there is None else fed.store.replace(key, value, there.revision)
    )
    assert done is not None


async def until_round(fed: Federation, check: Callable[[Round], bool]) -> Round:
    async with asyncio.timeout(30):
        while (found := await fed.round(1)) is None or not check(found):  # noqa: ASYNC110 (as a node sees it)
            await asyncio.sleep(0.01)
        return found


async def honest(fed: Federation) -> Round:
    """Assert that the next tick's round is decided by the majority."""
    done = await fed.ended(1)
    assert done.phase == "decided", done.reason
    assert fed.show("a.csv") == f"id,price\n1,{HONEST}"
    assert fed.truth() == [name(1), name(0)]
    return done


async def told(fed: Federation, words: str, nodes: str = "abc") -> bool:
    """Wait until an alarm on one of these nodes contains `words`."""
    async with asyncio.timeout(60):
        while not any(words in alarm for alarm in await _alarms(fed, nodes)):  # noqa: ASYNC110 (as a person looks)
            await asyncio.sleep(0.01)
    return True


async def _alarms(fed: Federation, nodes: str = "abc") -> list[str]:
    return [alarm.detail for node in nodes for alarm in await fed[node].alarms()]


def _hostile_commit(fed: Federation, first: Round) -> str:
    """Commit a forged ground truth and push it to the remote with the node's branch."""
    master = fed.master
    tip = git(master, "rev-parse", "ground-truth").strip()
    blob = git(master, "hash-object", "-w", "--stdin", feed="id,price\n1,hostile\n").strip()
    tree = git(master, "mktree", feed=f"100644 blob {blob}\ta.csv\n").strip()
    words = f"x\n\nMAO-Round: {name(1)}"
    lie = git(master, "commit-tree", tree, "-p", tip, "-m", words).strip()
    own = first.commits["node-c"]
    merged = git(master, "commit-tree", f"{own}^{{tree}}", "-p", own, "-p", lie, "-m", "x").strip()
    git(master, "update-ref", "refs/heads/node-c", merged)
    return lie


@pytest.mark.parametrize(
    "nodes", [["node-a", "node-b", "node-c", "node-c", "node-c"], ["node-a", "node-c"]], ids=["twice", "few"]
)
async def test_forger_attests_alone_what_its_round_calls_agreed(tmp_path: Path, nodes: list[str]) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        lie = _hostile_commit(fed, first)
        await fed["c"].stop()
        now = datetime.now(UTC)
        vote = Attestation(dataset="data", round=name(1), commit=lie, tree=lie, attested_at=now)
        await put(fed, keys.attestation("node-c", "data", name(1)), dump(vote))
        at = {"base": first.commit, "commit": lie, "tree": lie, "closed_by": "node-a", "closed_at": now}
        agreed = forged(fed, phase="closed", nodes=nodes, attested=["node-a", "node-b"], **at)
        await put(fed, keys.round("data", name(1)), dump(agreed))
        await until_round(fed, lambda round_: round_.commit is None and round_.nodes == NODES)
        assert git(fed.master, "rev-parse", "ground-truth").strip() == first.commit
        assert await told(fed, "no quorum has attested")


async def test_forger_flags_others_in_the_record(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await first_round(fed)
        framed = {f"node-{number}": "it lied" for number in ("b", *range(900))}
        await put(fed, keys.round("data", name(1)), dump(forged(fed, attempt=3, flagged=framed)))
        await fed.collect(1, [price(HONEST), price(HONEST), price(LIE)])
        done = await honest(fed)
        assert sorted(done.commits) == NODES
        assert not [alarm for alarm in await _alarms(fed) if "it lied" in alarm]


async def test_forger_closes_before_the_deadline(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        lie = (await fed["c"].collect(1, price(LIE))).snapshot
        true = (await fed["a"].collect(1, price(HONEST))).snapshot
        assert lie is not None
        assert true is not None
        await until_round(fed, lambda round_: round_.phase == "open")
        key = keys.announcement("node-a", "data", name(1))
        async with asyncio.timeout(60):
            while await fed.store.get(key) is None:  # noqa: ASYNC110 (as a node would see it)
                await asyncio.sleep(0.01)
        late = {"node-b": Abstention(reason="late")}
        pins = {"commits": {"node-a": true, "node-c": lie}, "abstained": late, "base": first.commit}
        shut = forged(fed, phase="closed", closed_by="node-a", closed_at=datetime.now(UTC), **pins)
        await put(fed, keys.round("data", name(1)), dump(shut))
        await until_round(fed, lambda round_: round_.phase == "open" and round_.attempt == 2)
        await fed["b"].collect(1, price(HONEST))
        assert sorted((await honest(fed)).commits) == NODES
        assert await told(fed, "before its deadline")


async def test_forger_backdates_the_closing(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await first_round(fed)
        tasks: list[asyncio.Task[None]] = []

        async def date_back() -> None:
            there = await fed.round(1)
            assert there is not None
            if there.commit is None:
                ago = there.changed(closed_at=datetime(2000, 1, 1, tzinfo=UTC))
                await put(fed, keys.round("data", name(1)), dump(ago))

        def after(written: Any) -> None:
            closed = [write for write in written if isinstance(write, Put) and b'"closed"' in write.value]
            if closed and not tasks:
                tasks.append(asyncio.create_task(date_back()))

        for node in fed.nodes:
            node.link.after = after
        await fed.collect(1, [price(HONEST)] * 3)
        await honest(fed)
        assert tasks


@pytest.mark.parametrize("garbage", [b"{garbage", b"{}"])
@pytest.mark.parametrize("kind", [keys.announcement, keys.attestation])
async def test_forger_unreadable_peer_record(
    tmp_path: Path, kind: Callable[[str, str, str], str], garbage: bytes
) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        await first_round(fed)
        await put(fed, kind("node-c", "data", name(1)), garbage)
        await fed["a"].collect(1, price(HONEST))
        await fed["b"].collect(1, price(HONEST))
        assert (await honest(fed)).abstained["node-c"].reason == "late"


async def test_forger_garbage_of_one_does_not_keep_round_open(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        await first_round(fed)
        await put(fed, keys.announcement("node-c", "data", name(1)), b"{garbage")
        await fed["a"].collect(1, price(HONEST))
        done = await fed.ended(1)
        assert done.phase == "undecided"
        assert "1 of 3 nodes submitted a snapshot" in (done.reason or "")


@pytest.mark.parametrize(
    "changes",
    [{"opened_at": datetime(2999, 1, 1, tzinfo=UTC)}, {"tick": tick(2)}, {"id": "x"}, {"dataset": "other"}],
    ids=["future", "tick", "id", "dataset"],
)
async def test_forger_misplaced_round(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await first_round(fed)
        await put(fed, keys.round("data", name(1)), dump(forged(fed, **changes)))
        await fed.collect(1, [price(HONEST)] * 3)
        await honest(fed)


async def test_forger_garbage_in_place_of_round(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await first_round(fed)
        text = dump(forged(fed)).replace(b'"opened_at":"20', b'"opened_at":"99')
        await put(fed, keys.round("data", name(1)), text)
        await fed.collect(1, [price(HONEST)] * 3)
        await honest(fed)


async def test_forger_false_decided(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        lie = first.commits["node-c"]
        await fed["a"].collect(1, price(HONEST))
        await fed["b"].collect(1, price(HONEST))
        open_ = await until_round(fed, lambda round_: round_.phase == "open")
        end = {"commit": lie, "tree": lie, "ended_at": datetime.now(UTC), "attested": NODES}
        await put(fed, keys.round("data", name(1)), dump(open_.changed(phase="decided", **end)))
        await until_round(fed, lambda round_: round_.phase == "open" and round_.attempt > 1)
        await fed["c"].collect(1, price(HONEST))
        assert (await honest(fed)).commit != lie
        assert await told(fed, "no quorum has attested")


async def test_forger_announces_past_ticks(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        for number in range(3):
            moment = tick(0) - timedelta(days=1, minutes=number)
            invented = Announcement(
                dataset="data",
                round=round_id(moment, PIPELINE, STEP),
                pipeline=PIPELINE,
                step=STEP,
                tick=moment,
                run="x",
                commit=first.commits["node-c"],
                announced_at=datetime.now(UTC),
            )
            await put(fed, keys.announcement("node-c", "data", invented.round), dump(invented))
        async with asyncio.timeout(60):
            while len(await fed.rounds()) < 4:  # noqa: ASYNC110 (as a node would see it)
                await asyncio.sleep(0.01)
        await fed.collect(1, [price(HONEST)] * 3)
        await honest(fed)


async def _all_announced(fed: Federation) -> dict[str, str]:
    """Let all nodes announce the next tick, with its round still open; return their commits by node."""
    await fed["c"].collect(1, price(LIE))
    await fed["a"].collect(1, price(HONEST))
    await fed["b"].collect(1, price(HONEST))
    found: dict[str, str] = {}
    async with asyncio.timeout(60):
        while len(found) < 3:
            for node in NODES:
                entry = await fed.store.get(keys.announcement(node, "data", name(1)))
                if entry is not None:
                    found[node] = str(Announcement.model_validate_json(entry.value).commit)
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("invented", [["x0", "x1", "x2"], ["node-c"]], ids=["strangers", "twice"])
async def test_forger_pins_non_voters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invented: list[str]
) -> None:
    """Close the round with all announcements and extra votes for the forger's commit."""
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        close = RoundExecutor._close
        monkeypatch.setattr(RoundExecutor, "_close", nothing)
        said = await _all_announced(fed)
        monkeypatch.setattr(RoundExecutor, "_close", close)
        pins = {**said, **dict.fromkeys(invented, said["node-c"])}
        twice = {"node-c": Abstention(reason="unreadable", detail="x")} if invented == ["node-c"] else {}
        at = {"closed_by": "node-c", "closed_at": datetime.now(UTC), "base": first.commit}
        shut = forged(fed, phase="closed", commits=pins, abstained=twice, **at)
        await put(fed, keys.round("data", name(1)), dump(shut))
        assert sorted((await honest(fed)).commits) == NODES


async def nothing(*_: Any) -> None:
    return None


@pytest.mark.parametrize("out", [{}, {"node-b": Abstention(reason="absent", detail="it did not run")}])
async def test_forger_leaves_node_out_early(tmp_path: Path, out: dict[str, Abstention]) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        first = await first_round(fed)
        lie = (await fed["c"].collect(1, price(LIE))).snapshot
        true = (await fed["a"].collect(1, price(HONEST))).snapshot
        await until_round(fed, lambda round_: round_.phase == "open")
        at = {"closed_by": "node-a", "closed_at": datetime.now(UTC), "base": first.commit}
        pins = {"commits": {"node-a": true, "node-c": lie}, "abstained": out}
        await put(fed, keys.round("data", name(1)), dump(forged(fed, phase="closed", **pins, **at)))
        await until_round(fed, lambda round_: round_.phase == "open" and round_.attempt > 1)
        await fed["b"].collect(1, price(HONEST))
        assert sorted((await honest(fed)).commits) == NODES


@pytest.mark.parametrize("garbage", [b"{garbage", b"{}"])
async def test_forger_turns_live_round_into_garbage(tmp_path: Path, garbage: bytes) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await first_round(fed)
        await fed["a"].collect(1, price(HONEST))
        await until_round(fed, lambda round_: round_.phase == "open")
        await put(fed, keys.round("data", name(1)), garbage)
        await fed["b"].collect(1, price(HONEST))
        await fed["c"].collect(1, price(LIE))
        await honest(fed)
