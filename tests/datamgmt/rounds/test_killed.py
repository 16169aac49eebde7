"""A node that dies before or after any of its writes to the federation while it leads a round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mao_git import Clone, StorageError
from mao_shared import keys
from mao_shared.errors import StoreUnknown
from mao_shared.models import Round
from mao_shared.store import Put
from mao_shared.store.memory import MemoryStore
from mao_shared.store.protocol import Write
from tests.datamgmt.world import writes

from .federation import Federation, Node, federation

WRITES = ["announced", "opened", "closed", "attested", "agreed", "decided"]


class _Dies:
    """Kill and restart a node's data manager once, at a chosen write."""

    def __init__(self, node: Node, what: str) -> None:
        self._node, self._what = node, what
        self.died: asyncio.Task[None] | None = None

    def strike(self, written: Sequence[Write]) -> None:
        if self.died is None and any(kind_of(write) == self._what for write in written):
            self.died = asyncio.create_task(self._again())
            raise StoreUnknown("the process is killed here")

    async def _again(self) -> None:
        await self._node.stop()
        await self._node.start()


def kind_of(write: Write) -> str | None:
    """Return what kind of record a write changes."""
    if not isinstance(write, Put):
        return None
    if write.key.startswith(keys.all_peers()):
        return "announced" if "/announcements/" in write.key else "attested"
    if not write.key.startswith(keys.all_rounds()):
        return None
    round_ = Round.model_validate_json(write.value)
    phases = {"open": "opened", "closed": "agreed" if round_.commit else "closed", "decided": "decided"}
    return phases.get(round_.phase)


async def decided_once(fed: Federation) -> None:
    """Assert that the tick in which a node dies and the next one are each decided once."""
    await fed.collect(0, [writes(a="0")] * len(fed.nodes))
    assert (await fed.ended(0)).phase == "decided"
    await fed.collect(1, [writes(a="1")] * len(fed.nodes))
    assert (await fed.ended(1)).phase == "decided"
    rounds = await fed.rounds()
    assert fed.truth() == [round_.id for round_ in reversed(rounds)]
    assert not any(round_.flagged for round_ in rounds)
    assert fed.show("a") == "1"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", WRITES)
async def test_killed_every_node_at_a_write(tmp_path: Path, what: str, when: str) -> None:
    """Kill all nodes, so that no other can complete the work."""
    async with federation(tmp_path, MemoryStore()) as fed:
        deaths = [_Dies(node, what) for node in fed.nodes]
        for node, dies in zip(fed.nodes, deaths, strict=True):
            setattr(node.link, when, dies.strike)
        await decided_once(fed)
        died = [death.died for death in deaths if death.died is not None]
        assert died
        await asyncio.gather(*died)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_push_of_ground_truth(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push: Callable[..., None] = Clone.push
    left = [3]

    def last(*args: object, **kwargs: object) -> None:
        branches = args[1]
        struck = isinstance(branches, dict) and "ground-truth" in branches and left[0] > 0
        if not struck or when == "after":
            push(*args, **kwargs)
        if struck:
            left[0] -= 1
            raise StorageError("killed here")

    monkeypatch.setattr(Clone, "push", last)
    async with federation(tmp_path, MemoryStore()) as fed:
        await decided_once(fed)
    assert left[0] < 3


async def test_killed_store_loses_decided_round(tmp_path: Path) -> None:
    """After a restore from an older backup, ground truth has the round already and gets no second commit."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await decided_once(fed)
        done = await fed.ended(1)
        await fed.store.delete(keys.round("data", done.id))
        for node in fed.nodes:
            await fed.store.delete(keys.attestation(node.name, "data", done.id))
        again = await fed.ended(1)
        assert (again.phase, again.commit, again.base) == ("decided", done.commit, done.base)
        assert fed.truth() == [round_.id for round_ in reversed(await fed.rounds())]
