"""A member cannot change who may vote, neither by the dataset's record nor by any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.rounds import announcer
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_datamgmt.rounds.peer_records import eligible_voters
from mao_shared import keys
from mao_shared.errors import Conflict, MaoError
from mao_shared.models import Identity, Participation, Round, Run, round_id
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.datamgmt.world import writes
from tests.support.git import git
from tests.support.waiting import eventually

from .federation import NODES, PIPELINE, STEP, Federation, federation, tick
from .test_liars import honest

Forge = Callable[[dict[str, Any]], bytes | None]
DATA = keys.registry("datasets", "data")


def _nodes(*nodes: str) -> Forge:
    return lambda record: json.dumps({**record, "nodes": nodes}).encode()


FORGED: dict[str, Forge] = {
    "shortened": _nodes("node-a", "node-c"),
    "alone": _nodes("node-c"),
    "emptied": _nodes(),
    "invented": _nodes(*NODES, "x", "y", "z", "u"),
    "elsewhere": lambda record: json.dumps({**record, "master": "/nowhere"}).encode(),
    "renamed": lambda record: json.dumps({**record, "name": "other"}).encode(),
    "unreadable": lambda _: b"{garbage",
    "deleted": lambda _: None,
}


async def forge(fed: Federation, what: Forge) -> bytes:
    """Write the dataset's record as a member and return its previous content."""
    there = await fed.store.get(DATA)
    assert there is not None
    value = what(json.loads(there.value))
    if value is None:
        assert await fed.store.delete(DATA, there.revision)
    else:
        assert await fed.store.replace(DATA, value, there.revision) is not None
    return there.value


async def restore(fed: Federation, value: bytes) -> None:
    there = await fed.store.get(DATA)
    if there is None:
        await fed.store.create(DATA, value)
    else:
        await fed.store.replace(DATA, value, there.revision)


async def rewrite(fed: Federation, key: str, value: bytes) -> None:
    there = await fed.store.get(key)
    assert await fed.store.replace(key, value, there.revision if there else 0) is not None


async def begun(fed: Federation) -> None:
    await fed.collect(0, [writes(a="0")] * 3)
    await honest(fed, 0, "0")


@pytest.mark.parametrize("how", FORGED)
async def test_voters_dataset_record_decides_nothing(tmp_path: Path, how: str) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        await forge(fed, FORGED[how])
        steps = await asyncio.gather(
            *(
                node.collect(1, writes(a=text))
                for node, text in zip(fed.nodes, ("1", "1", "lie"), strict=True)
            )
        )
        assert {step.ground_truth for step in steps} == {None}
        done = await honest(fed, 1, "1")
        assert (done.nodes, sorted(done.commits)) == (NODES, NODES)
        assert done.attempt == 1


async def test_voters_first_to_announce_with_empty_node_list_is_not_alone(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        await begun(fed)
        await forge(fed, FORGED["emptied"])
        step = await fed["c"].collect(1, writes(a="lie"))
        assert step.ground_truth is None
        assert (await fed.ended(1)).phase == "undecided"
        assert fed.show("a") == "0"


@pytest.mark.parametrize("restored", [True, False])
@pytest.mark.parametrize("phase", [StepPhase.READY, StepPhase.SUCCEEDED])
async def test_voters_dataset_record_unreadable_while_run_ends(
    tmp_path: Path, phase: StepPhase, restored: bool
) -> None:
    """Unreadable from a phase of node-a's step until its run has ended, or permanently."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        node = fed["a"]
        run_id = await node.begin(1)
        before = await _forged_from(fed, run_id, phase)
        step = await node.play(run_id, writes(a="1"))
        assert (step.phase, step.error, step.ground_truth) == (StepPhase.SUCCEEDED, None, None)
        announced = keys.announcement("node-a", "data", round_id(tick(1), PIPELINE, STEP))
        async with asyncio.timeout(60):
            while await fed.store.get(announced) is None:  # noqa: ASYNC110 (as another node would see it)
                await asyncio.sleep(0.01)
        record = await before
        if restored:
            await restore(fed, record)
        await asyncio.gather(fed["b"].collect(1, writes(a="1")), fed["c"].collect(1, writes(a="lie")))
        await honest(fed, 1, "1")


async def _forged_from(fed: Federation, run_id: str, phase: StepPhase) -> asyncio.Task[bytes]:
    def there(run: Run) -> bool:
        return run.steps[0].phase is phase or run.phase is RunPhase.SUCCEEDED

    async def wait() -> bytes:
        await fed["a"].until(run_id, there)
        return await forge(fed, FORGED["unreadable"])

    return asyncio.create_task(wait())


async def test_announcer_retries_run_with_unreadable_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells, faults = DatasetSharing.is_shared, iter(range(5))

    async def sometimes(agreement: DatasetSharing, dataset: str) -> bool:
        if next(faults, None) is not None:
            raise MaoError("The record cannot be read.", code="record-unreadable")
        return await tells(agreement, dataset)

    monkeypatch.setattr(DatasetSharing, "is_shared", sometimes)
    monkeypatch.setattr(announcer, "UNREADABLE_RETRY_SECONDS", 0.05)
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        assert sorted((await fed.rounds())[0].commits) == NODES


async def test_voters_participation_of_non_member_does_not_count(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        for ghost in ("x", "y", "z", "u"):
            await fed.store.create(
                keys.part(ghost, "data"), dump(Participation(dataset="data", since=tick(0)))
            )
        await begun(fed)
        assert (await fed.rounds())[0].nodes == NODES


async def test_voters_member_that_is_down_counts(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 2}) as fed:
        await begun(fed)
        await fed["c"].stop()
        step = await fed["a"].collect(1, writes(a="1"))
        assert step.ground_truth is None
        await fed["b"].collect(1, writes(a="1"))
        done = await honest(fed, 1, "1")
        assert (done.nodes, done.abstained["node-c"].reason) == (NODES, "late")


async def test_voters_removed_member_is_not_waited_for(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        await fed["c"].stop()
        await asyncio.gather(fed["a"].collect(1, writes(a="1")), fed["b"].collect(1, writes(a="1")))
        entry = await fed.store.get(keys.identity("node-c"))
        assert entry is not None
        gone = Identity.model_validate_json(entry.value).model_copy(update={"state": "removed"})
        await rewrite(fed, keys.identity("node-c"), dump(gone))
        done = await honest(fed, 1, "1")
        assert done.nodes == ["node-a", "node-b"]


@pytest.mark.parametrize(
    "part",
    [b"{garbage", dump(Participation(dataset="other", since=tick(0)))],
    ids=["garbage", "of another dataset"],
)
async def test_voters_invalid_participation_does_not_count(tmp_path: Path, part: bytes) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        await fed["c"].stop()
        await rewrite(fed, keys.part("node-c", "data"), part)
        await asyncio.gather(fed["a"].collect(1, writes(a="1")), fed["b"].collect(1, writes(a="1")))
        assert (await honest(fed, 1, "1")).nodes == ["node-a", "node-b"]


async def test_voters_start_while_federation_is_away(tmp_path: Path) -> None:
    """A node that does not know the participants and was not alone before moves no branch by itself."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        node = fed["a"]
        await node.stop()
        node.link.cut()
        await node.start()
        step = await node.collect(1, writes(a="1"))
        assert (step.ground_truth, step.phase) == (None, StepPhase.SUCCEEDED)
        assert fed.show("a") == "0"
        node.link.mend()
        await asyncio.gather(fed["b"].collect(1, writes(a="1")), fed["c"].collect(1, writes(a="1")))
        await honest(fed, 1, "1")


async def test_voters_second_node_joins_and_withdraws(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a", "node-b"]) as fed:
        one, other = fed.nodes
        await other.withdraw()
        await _counted(fed, 1)
        assert (await one.collect(0, writes(a="alone"))).ground_truth is not None
        await other.enrol(None)
        await _counted(fed, 2)
        await fed.collect(1, [writes(a="both")] * 2)
        await honest(fed, 1, "both")
        await other.withdraw()
        await _counted(fed, 1)
        assert "maoctl dataset alone" in ((await one.collect(2, writes(a="again"))).waiting or "")


async def _counted(fed: Federation, count: int) -> None:
    def told() -> bool:
        managers = [node.manager for node in fed.nodes]
        return all(
            len(manager.rounds.voters.cached("data") or ()) == count for manager in managers if manager
        )

    await eventually(told)


async def test_voters_members_leave_open_round(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await begun(fed)
        await asyncio.gather(fed["a"].collect(1, writes(a="1")), fed["b"].collect(1, writes(a="1")))
        assert (await _open(fed, 1)).nodes == NODES
        await fed["c"].withdraw()
        assert (await honest(fed, 1, "1")).nodes == ["node-a", "node-b"]


async def _open(fed: Federation, number: int) -> Round:
    async with asyncio.timeout(60):
        while (found := await fed.round(number)) is None:  # noqa: ASYNC110 (as a node would see it)
            await asyncio.sleep(0.01)
        return found


def test_eligible_voters() -> None:
    def identity(node: str, state: Any = "joined") -> Identity:
        return Identity(node=node, user=f"{node}@1", state=state, invited_at=tick(0))

    assert eligible_voters(["b", "a", "b"], {}) == ["a", "b"]
    known = {
        "a": identity("a"),
        "b": identity("b", "invited"),
        "c": identity("c", "removed"),
        "d": identity("a"),
    }
    assert eligible_voters(["a", "b", "c", "d", "e"], known) == ["a"]
    assert eligible_voters([], known) == []


async def test_sharing_last_node_needs_operator_to_go_alone(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        voted = (await fed.ended(0)).commit
        manager = await fed.without("b", "c")
        done = await fed["a"].collect(1, writes(a="alone"))
        assert "maoctl dataset alone data" in (done.waiting or "")
        assert git(fed.master, "rev-parse", "ground-truth") == voted
        await manager.go_alone("data")
        assert fed.show("a") == "alone"
        await fed["a"].collect(2, writes(a="more"))
        assert fed.show("a") == "more"


async def test_voters_open_round_is_undecided_when_others_leave(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        voted = (await fed.ended(0)).commit
        await fed["a"].collect(1, writes(a="alone"))
        await _open(fed, 1)
        await fed.without("b", "c")
        done = await fed.ended(1)
        assert (done.phase, done.reason) == ("undecided", "no other node is left to vote")
        assert git(fed.master, "rev-parse", "ground-truth") == voted
        assert not [alarm for alarm in await fed["a"].alarms() if "false records" in alarm.detail]


async def test_sharing_is_recorded_before_first_run(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        for name in ("a", "b"):
            await fed[name].collect(0, writes(a="0"))
        await fed.without("a", "b")
        assert "maoctl dataset alone" in ((await fed["c"].collect(1, writes(a="alone"))).waiting or "")


async def test_voters_new_voter_seen_at_different_times_undoes_no_write(
    tmp_path: Path,
) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=[*NODES, "node-d"]) as fed:
        await fed["d"].withdraw()
        await _counted(fed, 3)
        for name in ("a", "b", "c"):
            await fed[name].collect(0, writes(a="0"))
        await fed.ended(0)
        await fed["a"].collect(1, writes(a="1"))
        await _open(fed, 1)
        fed["b"].link.slow = 0.5
        await fed["d"].enrol(None)
        await _counted(fed, 4)
        for name in ("b", "c", "d"):
            await fed[name].collect(1, writes(a="1"))
        done = await honest(fed, 1, "1")
        assert done.attempt <= 3


async def test_sharing_go_alone_refused_while_others_take_part(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await fed.collect(0, [writes(a="0")] * 3)
        await fed.ended(0)
        manager = fed["a"].manager
        assert manager is not None
        with pytest.raises(Conflict, match="node-b, node-c take part as well"):
            await manager.go_alone("data")


async def test_sharing_ticks_while_alone_get_no_rounds(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a", "node-b"]) as fed:
        await fed.collect(0, [writes(a="0")] * 2)
        await fed.ended(0)
        manager = await fed.without("b")
        await fed["a"].collect(1, writes(a="1"))
        await fed["b"].start()
        await eventually(lambda: manager.rounds.voters.cached("data") == ["node-a", "node-b"])
        await fed.collect(2, [writes(a="2")] * 2)
        assert (await fed.ended(2)).phase == "decided"
        assert await fed.round(1) is None
