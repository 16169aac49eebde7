"""Nodes of a federation whose runs a real scheduler leads; only the runner is played: it is quick."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from mao_datamgmt.manager import DataManager
from mao_scheduler.metrics import SchedulerMetrics
from mao_scheduler.scheduler import make_scheduler
from mao_scheduler.settings import SchedulerSettings
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.errors import MaoError
from mao_shared.host.data_dir import DataDir
from mao_shared.metrics import Metrics
from mao_shared.models import DatasetRef, Exit, Participation, Run, StepRun, VoteDefinition, tick_run_id
from mao_shared.models.pipeline import Overlap
from mao_shared.reconcile import background
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from mao_shared.store import Store
from mao_shared.store.records import dump
from tests.support.git import bare_repository
from tests.support.waiting import eventually_answers

from .federation import PIPELINE, Federation, Node, federation, tick

LOOK = 0.1  # seconds, mostly virtual, between two looks at runs and rounds


class LedNode:
    """`hold`: names of steps whose tools do not end until they are taken out."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.hold: set[str] = set()

    @asynccontextmanager
    async def led(self) -> AsyncIterator[None]:
        """Scheduler and runner are at work within the block."""
        own, name = self.node.own, self.node.name
        made = make_scheduler(
            SchedulerSettings(node=name), own, own, SystemClock(), SchedulerMetrics(Metrics())
        )
        async with background(
            made.run_mirror.run(), made.controller.run(), self._play(), on_failure=lambda: None
        ):
            yield

    async def _play(self) -> None:
        while True:
            for run in await self.runs():
                index = run.active_step() if run.phase is RunPhase.RUNNING else None
                if index is not None:
                    await self._play_step(run, index)
            await asyncio.sleep(LOOK)

    async def _play_step(self, run: Run, index: int) -> None:
        step = run.steps[index]
        if step.phase is StepPhase.READY:
            moved = step.move(StepPhase.STARTING, tick(0)).move(StepPhase.RUNNING, tick(0))
        elif step.phase is StepPhase.RUNNING and step.spec.name not in self.hold:
            place = DataDir(self.node.root / "node").workspace(run.id, index, step.attempt).data
            (place / step.spec.name).write_text(f"{run.scheduled_for}\n")
            moved = step.move(StepPhase.EXITED, tick(0), exit=Exit(code=0))
        else:
            return
        stored = await self.node.runs.get(run.id)
        if stored is not None and stored.record.steps[index].phase is step.phase:
            await self.node.runs.replace(run.id, stored.record.with_step(index, moved), stored.revision)

    async def queue(self, number: int, *steps: StepRun, overlap: Overlap = "skip", **changes: Any) -> str:
        """A tick of the schedule is due; the id of its run."""
        moment = tick(number)
        run_id = tick_run_id(PIPELINE, self.node.name, moment)
        fields: dict[str, Any] = {"scheduled_for": moment, "trigger": "schedule", "created_at": moment}
        run = Run(
            id=run_id,
            pipeline=PIPELINE,
            node=self.node.name,
            overlap=overlap,
            steps=list(steps or two_steps(self.node)),
            **{**fields, **changes},
        )
        assert await self.node.runs.create(run_id, run) is not None
        return run_id

    async def runs(self) -> list[Run]:
        return [each.record for each in await self.node.runs.all()]

    async def collected(self, run_id: str) -> Run:
        """The run once its first step has been published, or it was missed."""
        return await self.node.until(run_id, lambda run: run.phase in RUN_ENDED or is_collected(run))

    async def all_ended(self) -> list[Run]:
        async def ended() -> bool:
            return all(run.phase in RUN_ENDED for run in await self.runs())

        await eventually_answers(ended, 60, interval=LOOK)
        return await self.runs()

    @property
    def manager(self) -> DataManager:
        assert self.node.manager is not None
        return self.node.manager


def is_collected(run: Run) -> bool:
    return bool(run.steps) and run.steps[0].phase is StepPhase.SUCCEEDED


def two_steps(node: Node, into: str = "sums", **spec: Any) -> list[StepRun]:
    """One that observes, and one that reads what all agree on and writes `into` a dataset."""
    first, second = node.step(), node.step(into, "sum")
    source = DatasetRef(name="data", master=str(node.master), branch="ground-truth")
    master = node.master if into == "data" else node.root.parent / f"{into}.git"
    output = second.spec.output.model_copy(update={"master": str(master)})
    fields = {"input": source, "output": output, **spec}
    return [first, StepRun(spec=second.spec.model_copy(update=fields))]


@asynccontextmanager
async def led_federation(
    root: Path, store: Store, *, deadline: float, absent: str = "c", into: str = "sums"
) -> AsyncIterator[tuple[Federation, list[LedNode]]]:
    """Three nodes with two shared datasets, one of them off; the others are led."""
    vote = {"deadline": deadline}
    if into != "data":
        master = bare_repository(root / f"{into}.git")
        record = {"name": into, "master": str(master), "nodes": [], "vote": vote}
        await store.create(keys.registry("datasets", into), json.dumps(record).encode())
    async with federation(root, store, vote=vote, round_grace=3) as fed, AsyncExitStack() as stack:
        for node in fed.nodes:
            if into != "data":
                await store.create(
                    keys.part(node.name, into), dump(Participation(dataset=into, since=tick(0)))
                )
                await _enrol(node, into, vote)
        await fed[absent].stop()
        there = [LedNode(node) for node in fed.nodes if node.manager is not None]
        for each in there:
            await stack.enter_async_context(each.led())
        yield fed, there


async def _enrol(node: Node, dataset: str, vote: dict[str, Any]) -> None:
    node_master, node.master = node.master, node.root.parent / f"{dataset}.git"
    try:
        await node.enrol(vote, dataset)
    finally:
        node.master = node_master
    assert node.vote == VoteDefinition.model_validate(vote)


async def all_rounds_ended(fed: Federation, count: int, dataset: str) -> list[str]:
    """The phases of a dataset's rounds, once so many have ended."""

    async def ended() -> bool:
        try:
            rounds = await fed.rounds(dataset)
        except MaoError:
            return False
        return len(rounds) >= count and all(each.phase in ("decided", "undecided") for each in rounds)

    await eventually_answers(ended, 60, interval=LOOK)
    return [each.phase for each in await fed.rounds(dataset)]
