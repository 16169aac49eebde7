"""A running data manager on a memory store, with the test acting as scheduler and runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mao_datamgmt.context import Context, make_context
from mao_datamgmt.manager import DataManager, build
from mao_datamgmt.settings import DataSettings
from mao_git import configure
from mao_shared import keys
from mao_shared.host.data_dir import Workspace
from mao_shared.metrics import Metrics
from mao_shared.models import DatasetRef, Exit, Participation, ResolvedImage, ResolvedStep, Run, StepRun
from mao_shared.reconcile import background
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store, Stored
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.git import bare_repository, git, trailers
from tests.support.settings import given

NODE = "node-1"
BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
IMAGE = ResolvedImage(name="lab/tool:1", pinned="sha256:" + "0" * 64, platform="linux/amd64")
PATIENCE = 20.0  # seconds
Tool = Callable[[Workspace], None]


def settings_for(root: Path, **changes: Any) -> DataSettings:
    values: dict[str, Any] = {
        "node": NODE,
        "data_dir": root / "node",
        "push_retry": 0.05,
        "local_remotes": str(root),
        "webhook_hosts": "127.0.0.1",
        **changes,
    }
    return given(DataSettings, **values)


def context_for(root: Path, **changes: Any) -> Context:
    """Create a context and configure libgit2 for it."""
    settings = settings_for(root, **changes)
    context = make_context(settings)
    configure(
        context.data.root / "git-home",
        settings.ssh_dir,
        connect=settings.remote_connect_timeout,
        silence=settings.remote_silence_timeout,
    )
    return context


def step(
    name: str,
    output: str,
    master: Path | str,
    source: tuple[str, str, str] | None = None,
    above: int | None = None,
) -> StepRun:
    """Return a step to be prepared; `source` is the name, master and branch of its input dataset.

    `above` is the size in bytes from which files go to Git LFS.
    """
    spec = ResolvedStep(
        name=name,
        tool=name,
        image=IMAGE,
        output=DatasetRef(name=output, master=str(master), branch=NODE, lfs_above=above),
        input=None if source is None else DatasetRef(name=source[0], master=source[1], branch=source[2]),
    )
    return StepRun(spec=spec)


def run_of(run_id: str, *steps: StepRun, after: int = 0) -> Run:
    """Return a running run whose first step is to be prepared; `after` delays its start, in seconds."""
    created = BEGIN + timedelta(seconds=after)
    first = steps[0].move(StepPhase.PREPARING, created)
    return Run(
        id=run_id,
        pipeline="pipeline",
        node=NODE,
        trigger="manual",
        phase=RunPhase.RUNNING,
        created_at=created,
        steps=[first, *steps[1:]],
    )


@dataclass
class World:
    """A running data manager; `master` is the dataset's remote, a bare repository."""

    root: Path
    store: Store
    manager: DataManager
    master: Path
    metrics: Metrics
    runs: Records[Run] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = Records(self.store, keys.runs_prefix(NODE), Run)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a metric's current sample, or None if it was never set."""
        return self.metrics.registry.get_sample_value(name, labels)

    async def begin(self, run: Run) -> Run:
        assert await self.runs.create(run.id, run) is not None
        return run

    async def get(self, run_id: str) -> Stored[Run]:
        stored = await self.runs.get(run_id)
        assert stored is not None
        return stored

    async def until(self, run_id: str, check: Callable[[Run], bool]) -> Run:
        """Wait until the run meets the condition, and return it."""
        async with asyncio.timeout(PATIENCE):
            stored = await self.get(run_id)
            seen = stored.revision
            if check(stored.record):
                return stored.record
            async for batch in self.store.watch(keys.run(NODE, run_id), after=seen):
                for event in batch:
                    if event.entry is not None and check(run := self.runs.parse(event.entry).record):
                        return run
        raise AssertionError("a watch does not end")

    async def phase(self, run_id: str, *phases: StepPhase, index: int = 0) -> StepRun:
        run = await self.until(run_id, lambda run: run.steps[index].phase in phases)
        return run.steps[index]

    async def until_gone(self, run_id: str) -> None:
        """Wait until the data manager has removed the workspaces of an ended run."""
        async with asyncio.timeout(PATIENCE):
            while self.manager.context.data.run_workspaces(run_id).exists():  # noqa: ASYNC110 (a folder tells nobody)
                await asyncio.sleep(0.01)

    async def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """Change a run as another service would, retrying after lost races."""
        stored = await self.runs.update(run_id, change)
        assert stored is not None
        return stored.record

    def workspace(self, run_id: str, index: int = 0, attempt: int = 1) -> Workspace:
        return self.manager.context.data.workspace(run_id, index, attempt)

    async def run_tool(self, run_id: str, tool: Tool, index: int = 0) -> None:
        """Wait for the workspace, run the tool in it, and record its exit."""
        ready = await self.phase(run_id, StepPhase.READY, index=index)
        tool(self.workspace(run_id, index, ready.attempt))

        def exited(run: Run) -> Run:
            one = run.steps[index].move(StepPhase.STARTING, BEGIN).move(StepPhase.RUNNING, BEGIN)
            return run.with_step(index, one.move(StepPhase.EXITED, BEGIN, exit=Exit(code=0)))

        await self.change(run_id, exited)

    async def whole(self, run: Run, tool: Tool) -> StepRun:
        """Start a run of one step, run its tool, and return the step once it has ended."""
        await self.begin(run)
        await self.run_tool(run.id, tool)
        return await self.phase(run.id, StepPhase.SUCCEEDED, StepPhase.FAILED)

    async def finish(self, run_id: str, phase: RunPhase = RunPhase.SUCCEEDED) -> Run:
        """End the run as the scheduler does."""
        return await self.change(run_id, lambda run: run.move(phase, finished_at=BEGIN))

    async def analysed(self, run_id: str) -> StepRun:
        """End the run, wait for its analysis, and return its first step."""
        await self.finish(run_id)
        await self.until_analysed(run_id)
        return (await self.get(run_id)).record.steps[0]

    async def until_analysed(self, run_id: str = "") -> None:
        """Wait until no analysis of the run, or of any run, is pending."""
        prefix = keys.analyses_prefix(NODE) + (f"{run_id}~" if run_id else "")
        async with asyncio.timeout(PATIENCE):
            watch = self.store.watch(prefix, after=(await self.store.list(prefix)).revision)
            while (await self.store.list(prefix)).entries:
                await anext(watch)
            await watch.aclose()

    async def takes_part(self, node: str, dataset: str) -> None:
        await self.store.create(keys.part(node, dataset), dump(Participation(dataset=dataset, since=BEGIN)))


@asynccontextmanager
async def working(root: Path, store: Store | None = None, **changes: Any) -> AsyncIterator[World]:
    """Run a data manager with its controllers for the block."""
    store = store or MemoryStore()
    master = root / "master.git"
    if not master.exists():
        bare_repository(master)
    metrics = Metrics()
    manager = build(settings_for(root, **changes), store, store, metrics)
    parts = (
        manager.mirror.run(),
        manager.controller.run(),
        manager.pusher.run(),
        manager.repair.run(),
        manager.upkeep.run(),
        *manager.analysis.loops(),
        manager.webhooks.run(),
        manager.signers.announce(),
    )
    failed: list[None] = []
    try:
        async with background(*parts, on_failure=lambda: failed.append(None)):
            yield World(root, store, manager, master, metrics)
        assert not failed, "a controller ended by an error; its log says which"
    finally:
        manager.close()


def writes(**files: str) -> Tool:
    """Return a tool that writes files; `a__b` means a/b."""

    def tool(workspace: Workspace) -> None:
        for name, text in files.items():
            path = workspace.data / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return tool


def runs_on(master: Path, branch: str = NODE) -> list[str]:
    """Return the ids of the runs whose commits a branch has, newest first."""
    return trailers(master, branch, "MAO-Run")


def push_as_stranger(tmp_path: Path, master: Path, branch: str, **files: str) -> None:
    """Commit to a branch of the remote as a foreign writer."""
    work = tmp_path / f"stranger-{branch}-{len(list(tmp_path.iterdir()))}"
    git(tmp_path, "clone", "-q", "-b", branch, str(master), str(work))
    for name, text in files.items():
        (work / name).write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-qm", "by a stranger")
    git(work, "push", "-q", "origin", branch)
