"""While one node is off, the others lose no observation and no round."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mao_shared.models.pipeline import Overlap
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore

from .led import LedNode, all_rounds_ended, is_collected, led_federation, two_steps

TICKS = 10
FEW = 4


async def observe(nodes: list[LedNode], overlap: Overlap, into: str, ticks: int) -> None:
    """Run `ticks` ticks, each as soon as the previous one was observed."""
    for number in range(ticks):
        runs = [await node.queue(number, *two_steps(node.node, into), overlap=overlap) for node in nodes]
        pairs = zip(nodes, runs, strict=True)
        found = await asyncio.gather(*(node.collected(run) for node, run in pairs))
        assert all(map(is_collected, found)), [(run.phase, run.reason) for run in found]


async def all_done(node: LedNode, ticks: int) -> None:
    """Wait until both steps of every run have succeeded, the second ones in the order of ticks."""
    runs = await node.all_ended()
    assert [run.phase for run in runs] == [RunPhase.SUCCEEDED] * ticks
    assert [run.steps[1].phase for run in runs] == [StepPhase.SUCCEEDED] * ticks, [r.reason for r in runs]
    done = [run.steps[1].times[StepPhase.SUCCEEDED] for run in runs]
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("overlap", "into", "ticks"),
    [("skip", "sums", TICKS), ("replace", "sums", FEW), ("queue", "sums", FEW), ("skip", "data", FEW)],
)
async def test_absent_node_every_tick_observed_and_decided(
    tmp_path: Path, overlap: Overlap, into: str, ticks: int
) -> None:
    """With `into` data, the second step writes the dataset that it reads."""
    async with led_federation(tmp_path, MemoryStore(), deadline=4, into=into) as (fed, nodes):
        await observe(nodes, overlap, into, ticks)
        for node in nodes:
            await all_done(node, ticks)
        rounds = {into: ticks, "data": ticks} if into != "data" else {"data": 2 * ticks}
        for dataset, count in rounds.items():
            assert await all_rounds_ended(fed, count, dataset) == ["decided"] * count


async def test_absent_node_returns_and_undoes_no_round(tmp_path: Path) -> None:
    async with led_federation(tmp_path, MemoryStore(), deadline=2) as (fed, nodes):
        await observe(nodes, "skip", "sums", FEW)
        for node in nodes:
            await all_done(node, FEW)
        for dataset in ("data", "sums"):
            assert await all_rounds_ended(fed, FEW, dataset) == ["decided"] * FEW
        before = [await fed.rounds(dataset) for dataset in ("data", "sums")]
        await fed["c"].start()
        back = LedNode(fed["c"])
        async with back.led():
            for number in range(FEW):  # like a schedule that catches up on all ticks
                await back.queue(number, overlap="queue")
            await all_done(back, FEW)
        assert [await fed.rounds(dataset) for dataset in ("data", "sums")] == before
