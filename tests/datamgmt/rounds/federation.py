"""Several data managers in one process on one federation's store; the tests play scheduler and runner."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mao_datamgmt.manager import DataManager, build
from mao_datamgmt.rounds.compute import VoteResult, VoteTask, compute
from mao_shared import keys
from mao_shared.errors import MaoError, StoreUnavailable
from mao_shared.host.data_dir import DataDir
from mao_shared.metrics import Metrics
from mao_shared.models import (
    Alarm,
    DatasetRef,
    Enrolment,
    Exit,
    Failure,
    Identity,
    Participation,
    ResolvedStep,
    Round,
    Run,
    StepRun,
    VoteDefinition,
    round_id,
    tick_run_id,
)
from mao_shared.reconcile import background
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Entry, Page, Put, Records, Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.protocol import Batch, Check
from mao_shared.store.protocol import Write as StoreWrite
from mao_shared.store.records import dump
from tests.datamgmt.world import IMAGE, Tool, settings_for
from tests.support.git import bare_repository, file_at, trailers
from tests.support.waiting import eventually

NODES = ["node-a", "node-b", "node-c"]
PIPELINE = "crawl"
STEP = "collect"
TICK = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
PATIENCE = 60.0  # seconds


class Link(Store):
    """One node's way to the federation's store; it can be cut, and may break around a write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._up = asyncio.Event()
        self._up.set()
        self.slow = 0.0  # seconds that what peers say takes until it is heard
        self.before: Callable[[Sequence[StoreWrite]], None] = lambda _: None
        self.after: Callable[[Sequence[StoreWrite]], None] = lambda _: None

    def cut(self) -> None:
        self._up.clear()

    def mend(self) -> None:
        self._up.set()

    def _check(self) -> None:
        if not self._up.is_set():
            raise StoreUnavailable("the link is cut")

    async def get(self, key: str) -> Entry | None:
        self._check()
        return await self._store.get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        self._check()
        return await self._store.list(prefix, limit=limit, cursor=cursor, newest_first=newest_first)

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self._write([Put(key, value)], self._store.create(key, value, lease=lease))

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        call = self._store.replace(key, value, revision, lease=lease)
        return await self._write([Put(key, value)], call)

    async def delete(self, key: str, revision: int | None = None) -> bool:
        self._check()
        return await self._store.delete(key, revision)

    async def transact(self, checks: Sequence[Check], writes: Sequence[StoreWrite]) -> int | None:
        return await self._write(writes, self._store.transact(checks, writes))

    async def _write(self, writes: Sequence[StoreWrite], call: Coroutine[Any, Any, int | None]) -> int | None:
        try:
            self._check()
            self.before(writes)
        except BaseException:
            call.close()
            raise
        done = await call
        self.after(writes)
        return done

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """What happens while the link is cut comes when it is mended, as from etcd."""
        async with contextlib.aclosing(self._store.watch(prefix, after=after)) as watch:
            async for batch in watch:
                await self._up.wait()
                if self.slow and prefix == keys.all_peers():
                    await asyncio.sleep(self.slow)
                yield batch

    async def grant(self, ttl: int) -> int:
        self._check()
        return await self._store.grant(ttl)

    async def keep_alive(self, lease: int) -> bool:
        self._check()
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        self._check()
        await self._store.revoke(lease)

    async def ping(self) -> None:
        self._check()
        await self._store.ping()

    async def close(self) -> None:
        return None


@dataclass
class Node:
    """One node; `own` outlives its data manager, as its etcd would. `processes`: votes run in such."""

    name: str
    root: Path
    link: Link
    master: Path
    own: MemoryStore = field(default_factory=MemoryStore)
    settings: dict[str, Any] = field(default_factory=dict)
    processes: bool = False
    manager: DataManager | None = None
    vote: VoteDefinition | None = None
    failed: list[None] = field(default_factory=list)
    _stack: AsyncExitStack | None = None

    def __post_init__(self) -> None:
        self.runs = Records(self.own, keys.runs_prefix(self.name), Run)

    async def enrol(self, vote: dict[str, Any] | None, dataset: str = "data") -> None:
        """Its operator agrees to write to a dataset that votes so."""
        self.vote = None if vote is None else VoteDefinition.model_validate(vote)
        steps = [self.step(dataset).spec]
        name = f"{PIPELINE}-{dataset}"
        record = Enrolment(
            pipeline=name, node=self.name, steps=steps, pipeline_revision=1, enrolled_at=tick(0)
        )
        await Records(self.own, keys.enrolments_prefix(self.name), Enrolment).create(name, record)

    async def withdraw(self, dataset: str = "data") -> None:
        await self.own.delete(keys.enrolment(self.name, f"{PIPELINE}-{dataset}"))

    async def start(self) -> None:
        changes = {"round_grace": 0, **self.settings}
        settings = settings_for(self.root, node=self.name, local_remotes=str(self.root.parent), **changes)
        self.manager = manager = build(settings, self.own, self.link, Metrics())
        if not self.processes:
            manager.rounds.executor.compute = in_a_thread
        self._stack = AsyncExitStack()
        self._stack.callback(manager.close)
        await self._stack.enter_async_context(
            background(*manager.loops(), on_failure=lambda: self.failed.append(None))
        )

    async def stop(self) -> None:
        """All of its work is cancelled wherever it is, as by a kill."""
        if self._stack is not None:
            stack, self._stack, self.manager = self._stack, None, None
            await stack.aclose()
        assert not self.failed, "a controller ended by an error; its log says which"

    def step(self, dataset: str = "data", name: str = STEP) -> StepRun:
        output = DatasetRef(name=dataset, master=str(self.master), branch=self.name, vote=self.vote)
        return StepRun(spec=ResolvedStep(name=name, tool=name, image=IMAGE, output=output))

    async def begin(self, number: int, *steps: StepRun) -> str:
        """A run for the tick of that number; its id."""
        moment = tick(number)
        run_id = tick_run_id(PIPELINE, self.name, moment)
        first, *more = steps or (self.step(),)
        run = Run(
            id=run_id,
            pipeline=PIPELINE,
            node=self.name,
            trigger="schedule",
            phase=RunPhase.RUNNING,
            scheduled_for=moment,
            created_at=moment,
            steps=[first.move(StepPhase.PREPARING, moment), *more],
        )
        assert await self.runs.create(run.id, run) is not None
        return run_id

    async def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        while True:
            stored = await self.runs.get(run_id)
            assert stored is not None
            run = change(stored.record)
            if await self.runs.replace(run_id, run, stored.revision) is not None:
                return run

    async def until(self, run_id: str, check: Callable[[Run], bool]) -> Run:
        async with asyncio.timeout(PATIENCE):
            while True:
                stored = await self.runs.get(run_id)
                assert stored is not None
                if check(stored.record):
                    return stored.record
                watch = self.own.watch(keys.run(self.name, run_id), after=stored.revision)
                await anext(watch)
                await watch.aclose()

    async def play(self, run_id: str, tool: Tool, index: int = 0) -> StepRun:
        """Runs the tool of a step that gets ready, and ends the run after its last step."""
        data = DataDir(self.root / "node")
        ready = await self.until(run_id, lambda run: run.steps[index].phase is StepPhase.READY)
        tool(data.workspace(run_id, index, ready.steps[index].attempt))

        def exited(run: Run) -> Run:
            now = tick(0)
            one = run.steps[index].move(StepPhase.STARTING, now).move(StepPhase.RUNNING, now)
            return run.with_step(index, one.move(StepPhase.EXITED, now, exit=Exit(code=0)))

        await self.change(run_id, exited)
        done = await self.until(run_id, lambda run: run.steps[index].phase is StepPhase.SUCCEEDED)
        if index == len(done.steps) - 1:
            await self.change(run_id, lambda run: run.move(RunPhase.SUCCEEDED))
        return done.steps[index]

    async def collect(self, number: int, tool: Tool) -> StepRun:
        return await self.play(await self.begin(number), tool)

    async def fail(self, run_id: str) -> None:
        """The tool of the run's first step fails, and with it the run."""
        await self.until(run_id, lambda run: run.steps[0].phase is StepPhase.READY)
        error = Failure(code="tool-failed", detail="exit code 3", fault="tool")

        def failed(run: Run) -> Run:
            one = run.with_step(0, run.steps[0].move(StepPhase.FAILED, tick(0), error=error))
            return one.move(RunPhase.FAILED)

        await self.change(run_id, failed)

    async def alarms(self) -> list[Alarm]:
        records = Records(self.own, keys.alarms_prefix(self.name), Alarm)
        return [each.record for each in await records.all()]


@dataclass
class Federation:
    """`store`: the shared one, which nobody cuts."""

    store: Store
    master: Path
    nodes: list[Node]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == f"node-{name}")

    async def rounds(self, dataset: str = "data") -> list[Round]:
        records = Records(self.store, keys.rounds_prefix(dataset), Round)
        return [each.record for each in await records.all()]

    async def round(self, number: int, step: str = STEP, dataset: str = "data") -> Round | None:
        name = round_id(tick(number), PIPELINE, step)
        stored = await Records(self.store, keys.rounds_prefix(dataset), Round).get(name)
        return None if stored is None else stored.record

    async def ended(self, number: int, **of: str) -> Round:
        """Waits until the round of a tick has ended."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(MaoError):  # away, or garbage in its place
                    found = await self.round(number, **of)
                    if found is not None and found.phase in ("decided", "undecided"):
                        return found
                await asyncio.sleep(0.01)

    async def collect(self, number: int, tools: Sequence[Tool]) -> None:
        """All nodes collect for a tick; one that has no tool does not take part."""
        pairs = zip(self.nodes, tools, strict=False)
        await asyncio.gather(*(node.collect(number, tool) for node, tool in pairs))

    async def without(self, *names: str) -> DataManager:
        """These end and take part no more; the data manager of the one that is left, once it has heard so."""
        for name in names:
            await self[name].stop()
            await self.store.delete(keys.part(f"node-{name}", "data"))
        [left] = [node for node in self.nodes if node.manager is not None]
        manager = left.manager
        assert manager is not None
        await eventually(lambda: manager.rounds.voters.cached("data") == [left.name])
        return manager

    def truth(self) -> list[str]:
        """The rounds that ground truth's commits were made by, newest first."""
        return trailers(self.master, "ground-truth", "MAO-Round")

    def show(self, path: str) -> str:
        return file_at(self.master, f"ground-truth:{path}")


async def admit(store: Store, node: str) -> None:
    """A core node has let it in."""
    identity = Identity(node=node, user=f"{node}@1", state="joined", invited_at=tick(0), joined_at=tick(0))
    await store.create(keys.identity(node), dump(identity))


async def in_a_thread(task: VoteTask) -> VoteResult:
    return await asyncio.to_thread(compute, task)


def tick(number: float) -> datetime:
    return TICK + timedelta(minutes=number)


@asynccontextmanager
async def federation(
    root: Path,
    store: Store,
    *,
    nodes: Sequence[str] = NODES,
    vote: dict[str, Any] | None = None,
    processes: bool = False,
    ways: Mapping[str, Store] | None = None,
    **settings: Any,
) -> AsyncIterator[Federation]:
    """Nodes at work on a dataset `data` that they share. `ways`: each node's own store client, if any."""
    master = bare_repository(root / "master.git")
    record = {"name": "data", "master": str(master), "nodes": list(nodes), "vote": vote}
    await store.create(keys.registry("datasets", "data"), json.dumps(record).encode())
    for name in nodes:
        await admit(store, name)
        await store.create(keys.part(name, "data"), dump(Participation(dataset="data", since=tick(0))))
    ours = [
        Node(
            name,
            root / name,
            Link((ways or {}).get(name, store)),
            master,
            settings=settings,
            processes=processes,
        )
        for name in nodes
    ]
    try:
        for node in ours:
            await node.enrol(vote)
            await node.start()
        yield Federation(store, master, ours)
    finally:
        for node in ours:
            await node.stop()
