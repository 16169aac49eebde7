"""After SIGKILL of a real data manager, with real etcd and git, each snapshot exists exactly once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mao_shared import keys
from mao_shared.host.data_dir import DataDir
from mao_shared.models import ControlMetric, Exit, Run, Series, StepRun
from mao_shared.models.check import Check
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store, open_store
from tests.support.etcd import EtcdServer
from tests.support.git import bare_repository, file_at, git
from tests.support.waiting import eventually

from .mortal import Mortal
from .world import BEGIN, NODE, PATIENCE, run_of, runs_on, step

pytestmark = pytest.mark.etcd
LIVES = [
    "mao_git:Clone.open before",
    "mao_git:Clone.write_tree before",
    "mao_git:Clone.write_tree after",
    "mao_git:Clone.commit before",
    "mao_git:Clone.commit after",
    "mao_git:Clone.move_branch before",
    "mao_git:Clone.move_branch after",
    "mao_git:Clone.promote before",
    "mao_git:Clone.promote after",
    "mao_git:Clone.push before",
    "mao_git:Clone.push after",
    "mao_git:Clone.find_commit after",
]
QUARANTINING = [
    "mao_datamgmt.steps.publish:run_checks before",
    "mao_datamgmt.steps.publish:run_checks after",
    "mao_git:Clone.commit before",
    "mao_git:Clone.commit after",
    "mao_git:Clone.move_branch after",
    "mao_git:Clone.push before",
    "mao_git:Clone.push after",
]
SEED = 20261124
KILLS = 50
ENDED = (StepPhase.SUCCEEDED, StepPhase.FAILED)


@dataclass
class Lab:
    """A data manager in a process that is killed; the test acts as scheduler and runner."""

    mortal: Mortal
    store: Store
    data: DataDir
    master: Path

    def __post_init__(self) -> None:
        self.runs = Records(self.store, keys.runs_prefix(NODE), Run)

    async def until(self, run_id: str, *phases: StepPhase) -> StepRun:
        async with asyncio.timeout(PATIENCE):
            stored = await self.runs.get(run_id)
            assert stored is not None
            if stored.record.steps[0].phase in phases:
                return stored.record.steps[0]
            async for batch in self.store.watch(keys.run(NODE, run_id), after=stored.revision):
                for event in batch:
                    if event.entry is not None:
                        found = self.runs.parse(event.entry).record.steps[0]
                        if found.phase in phases:
                            return found
        raise AssertionError("a watch does not end")

    async def prepared(self, number: int, *checks: Check) -> str:
        """Create a run and wait for its workspace."""
        one = step("collect", "data", self.master)
        metrics = [ControlMetric(name="files", measure="files")]
        spec = one.spec.model_copy(update={"metrics": metrics, "checks": list(checks)})
        run = run_of(f"run-{number:03}", one.model_copy(update={"spec": spec}), after=number)
        assert await self.runs.create(run.id, run) is not None
        await self.until(run.id, StepPhase.READY)
        return run.id

    async def exit(self, run_id: str) -> None:
        """Let the run's tool write a few files and end."""
        folder = self.data.workspace(run_id, 0, 1).data
        for name in range(5):
            (folder / f"{run_id}-{name}").write_text(f"{run_id} {name}\n" * 200)
        (folder / "latest").write_text(run_id)
        stored = await self.runs.get(run_id)
        assert stored is not None
        one = stored.record.steps[0].move(StepPhase.STARTING, BEGIN).move(StepPhase.RUNNING, BEGIN)
        gone = stored.record.with_step(0, one.move(StepPhase.EXITED, BEGIN, exit=Exit(code=0)))
        assert await self.runs.replace(run_id, gone, stored.revision) is not None

    async def finish(self, run_id: str) -> None:
        """End the run as the scheduler does."""
        await self.until(run_id, *ENDED)
        done = lambda run: run.move(RunPhase.SUCCEEDED, finished_at=BEGIN)  # noqa: E731
        assert await self.runs.update(run_id, done) is not None

    async def analysed(self) -> list[str]:
        """Wait until no analysis is pending, and return the runs in the metric's series."""
        async with asyncio.timeout(PATIENCE):
            while (await self.store.list(keys.analyses_prefix(NODE))).entries:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stored = await Records(self.store, keys.series_prefix(NODE), Series).get("pipeline/collect/files")
        assert stored is not None
        return [point.run for point in stored.record.points]

    async def check(self, run_ids: list[str]) -> None:
        """Assert that all snapshots are pushed and in the series once, in order, with no leftovers."""
        newest_first = run_ids[::-1]
        await eventually(lambda: runs_on(self.master) == newest_first, PATIENCE)
        await eventually(lambda: _tip(self.master, "ground-truth") == _tip(self.master, NODE), PATIENCE)
        clone = self.data.clone("data")
        assert runs_on(clone) == newest_first
        for repository in (clone, self.master):
            assert "missing" not in git(repository, "fsck", "--strict", "--full")
        assert not list(clone.rglob("*.lock")) + list(clone.rglob("*_git2_*"))
        assert file_at(self.master, f"{NODE}:latest") == run_ids[-1]
        for run_id in run_ids:
            done = await self.until(run_id, *ENDED)
            assert done.phase is StepPhase.SUCCEEDED, done.error
            assert git(self.master, "show", "-s", "--format=%B", str(done.snapshot)).count(run_id) >= 1
        assert await self.analysed() == run_ids


def _tip(repository: Path, branch: str) -> str:
    return git(repository, "rev-parse", branch)


@contextmanager
def mortal_on(etcd: EtcdServer, root: Path) -> Iterator[Mortal]:
    mortal = Mortal(
        {
            "MAO_NODE": NODE,
            "MAO_DATA_DIR": str(root / "node"),
            "MAO_ETCD_ENDPOINTS": etcd.endpoints,
            "MAO_PUSH_RETRY": "0.05",
            "MAO_LOCAL_REMOTES": str(root),
            "MAO_LOG_LEVEL": "error",
        }
    )
    try:
        yield mortal
    finally:
        mortal.close()


@asynccontextmanager
async def lab(etcd: EtcdServer, root: Path) -> AsyncIterator[Lab]:
    etcd.wipe()
    store = open_store(etcd.endpoints)
    try:
        with mortal_on(etcd, root) as mortal:
            yield Lab(mortal, store, DataDir(root / "node"), bare_repository(root / "master.git"))
    finally:
        await store.close()


async def test_killed_at_each_step_of_publish(etcd_server: EtcdServer, tmp_path: Path) -> None:
    async with lab(etcd_server, tmp_path) as one:
        done: list[str] = []
        for number, life in enumerate(LIVES):
            one.mortal.live()
            run_id = await one.prepared(number)
            one.mortal.kill()
            await one.exit(run_id)
            one.mortal.live(life)
            await asyncio.wait_for(asyncio.to_thread(one.mortal.wait), PATIENCE)
            one.mortal.live()
            await one.finish(run_id)
            one.mortal.kill()
            done.append(run_id)
        one.mortal.live()
        await one.check(done)


async def test_killed_at_each_step_of_quarantining(etcd_server: EtcdServer, tmp_path: Path) -> None:
    never = Check(name="never", file="none", on_failure="quarantine")
    async with lab(etcd_server, tmp_path) as one:
        done: list[str] = []
        for number, life in enumerate(QUARANTINING):
            one.mortal.live()
            run_id = await one.prepared(number, never)
            one.mortal.kill()
            await one.exit(run_id)
            one.mortal.live(life)
            await asyncio.wait_for(asyncio.to_thread(one.mortal.wait), PATIENCE)
            one.mortal.live()
            await one.finish(run_id)
            one.mortal.kill()
            done.append(run_id)
        one.mortal.live()
        await eventually(lambda: runs_on(one.master, f"quarantine/{NODE}") == done[::-1], PATIENCE)
        assert not {*runs_on(one.master)} & {*done}
        for run_id in done:
            ended = await one.until(run_id, *ENDED)
            assert ended.quarantined, ended.error
            assert ended.snapshot is None
        health = await one.store.list(keys.check_health_prefix(NODE))
        alarms = await one.store.list(keys.alarms_prefix(NODE))
        assert (len(health.entries), len(alarms.entries)) == (1, 1)


async def test_killed_at_random(etcd_server: EtcdServer, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with lab(etcd_server, tmp_path) as one:
        done: list[str] = []
        one.mortal.live()
        for number in range(KILLS):
            run_id = await one.prepared(number)
            await one.exit(run_id)
            await asyncio.sleep(chance.uniform(0, 0.12))  # the moment of the kill, not a wait
            one.mortal.kill()
            one.mortal.live()
            await one.finish(run_id)
            done.append(run_id)
        await one.check(done)
