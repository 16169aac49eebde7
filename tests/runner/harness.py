"""A runner without its HTTP API, on a store and an engine that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mao_runner.drivers.protocol import Driver
from mao_runner.labels import StepAttempt
from mao_runner.runner import Runner
from mao_runner.settings import RunnerSettings
from mao_shared.agreements import AgreementFiles
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.host.data_dir import DataDir
from mao_shared.keys import runs_prefix
from mao_shared.metrics import Metrics
from mao_shared.models import (
    CancelRequest,
    DatasetRef,
    Enrolment,
    Limits,
    ResolvedImage,
    ResolvedStep,
    Run,
    StepRun,
)
from mao_shared.models.node import Condition
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store
from mao_shared.store.memory import MemoryStore

NODE = "node-1"
LIMIT = 30.0  # seconds that a test waits for anything


def step_spec(**changes: Any) -> ResolvedStep:
    """Return a step of tool `t` from busybox:1, with small limits."""
    fields: dict[str, Any] = {
        "name": "t",
        "tool": "t",
        "image": ResolvedImage(name="busybox:1", pinned="busybox:1", platform="linux/amd64"),
        "limits": Limits(memory=64 * 1024**2, pids=64, time=60, grace=1),
        "network": "none",
        "output": DatasetRef(name="d", master="/d", branch=NODE),
    }
    return ResolvedStep(**(fields | changes))


def ready_run(run_id: str, *, pipeline: str = "p", since: datetime | None = None, **spec: Any) -> Run:
    """Return a run whose first step is ready."""
    now = since or datetime.now(UTC)
    step = StepRun(spec=step_spec(**spec), phase=StepPhase.READY, times={StepPhase.READY: now})
    return Run(
        id=run_id,
        pipeline=pipeline,
        node=NODE,
        trigger="manual",
        phase=RunPhase.RUNNING,
        created_at=now,
        steps=[step],
    )


class Bench:
    """The store, the data directory and the engine, which outlive runners."""

    def __init__(self, root: Path, driver: Driver, store: Store | None = None, **settings: Any) -> None:
        self.root = root
        self.driver = driver
        self.store: Store = store or MemoryStore()
        self.runs = Records(self.store, runs_prefix(NODE), Run)
        self.data = DataDir(root)
        self.settings = RunnerSettings(node=NODE, data_dir=root, **({"leftover_grace": 0.2} | settings))
        self.agreements = AgreementFiles(self.settings.agreement_files())
        self.agreements.take_over([], {}, [], datetime.now(UTC))
        self.conditions = Conditions()

    @asynccontextmanager
    async def runner(self, clock: Clock | None = None) -> AsyncIterator[Runner]:
        """Run a runner during the block; leaving the block is like killing it."""
        runner = Runner(self.settings, self.store, self.driver, Metrics(), clock, self.conditions)
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await runner.close()

    def agree(self, run: Run) -> None:
        """Agree to the run's steps, as the registry does when the operator enrols the node."""
        steps = [step.spec for step in run.steps]
        now = datetime.now(UTC)
        enrolment = Enrolment(
            pipeline=run.pipeline, node=run.node, steps=steps, pipeline_revision=1, enrolled_at=now
        )
        self.agreements.agree(enrolment, now)

    async def submit(self, run: Run) -> Run:
        """Agree to the run, create its workspace and store it."""
        await asyncio.to_thread(self.agree, run)
        return await self.forge(run)

    async def forge(self, run: Run) -> Run:
        """Create the workspace and store the run without an agreement."""
        workspace = self.data.workspace(run.id, 0, run.steps[0].attempt)
        workspace.data.mkdir(parents=True)
        if run.steps[0].spec.input is not None:
            workspace.input.mkdir()
        assert await self.runs.create(run.id, run) is not None
        return run

    async def change(self, run_id: str, change: Callable[[Run], Run]) -> None:
        """Change the run as another service would: read, change and write until no race is lost."""
        while True:
            stored = await self.runs.get(run_id)
            assert stored is not None
            if await self.runs.replace(run_id, change(stored.record), stored.revision) is not None:
                return

    async def cancel(self, run_id: str) -> None:
        request = CancelRequest(requested_at=datetime.now(UTC), reason="test")
        await self.change(run_id, lambda run: run.model_copy(update={"cancel": request}))

    async def until(self, run_id: str, wanted: Callable[[StepRun], bool], seconds: float = LIMIT) -> StepRun:
        """Wait, by the store's watch, until `wanted` holds for the first step, and return it."""
        latest: StepRun | None = None
        try:
            async with asyncio.timeout(seconds):
                page = await self.store.list(self.runs.prefix + run_id)
                async for entry in self._values(run_id, page.revision):
                    latest = entry.steps[0]
                    if wanted(latest):
                        return latest
        except TimeoutError:
            raise AssertionError(f"it did not come; the step is {latest}") from None
        raise AssertionError("the watch ended")

    async def _values(self, run_id: str, revision: int) -> AsyncIterator[Run]:
        stored = await self.runs.get(run_id)
        assert stored is not None
        yield stored.record
        async for batch in self.store.watch(self.runs.prefix + run_id, after=revision):
            for event in batch:
                if event.entry is not None:
                    yield self.runs.parse(event.entry).record

    async def phase(self, run_id: str, *phases: StepPhase, seconds: float = LIMIT) -> StepRun:
        return await self.until(run_id, lambda step: step.phase in phases, seconds)

    async def left(self, run_id: str, seconds: float = LIMIT) -> StepRun:
        """Wait until the step has left the runner's phases, and return it."""
        ours = (StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING)
        return await self.until(run_id, lambda step: step.phase not in ours, seconds)

    def log(self, run_id: str, attempt: int = 1) -> str:
        """Read the log; empty if there is none yet."""
        path = self.data.log(run_id, 0, attempt)
        return path.read_text() if path.exists() else ""

    def condition(self, name: str) -> Condition | None:
        """Return the reported condition of this name, if any."""
        return next((condition for condition in self.conditions.current() if condition.name == name), None)

    def key(self, run_id: str, attempt: int = 1) -> StepAttempt:
        return StepAttempt(run_id, 0, attempt)


def minutes_ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)
