"""A restored node reconstructs the runs since the backup from the datasets' history, and repeats none."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.backup.reconcile import Reconciler
from mao_datamgmt.backup.restore import restore_backup
from mao_datamgmt.backup.runs import StepCommit, reconstruct_run, restored_failure
from mao_datamgmt.backup.take import take_backup
from mao_datamgmt.datasets.quarantine import Decision
from mao_datamgmt.git_executor import GitExecutor
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Enrolment, Run, StepRun
from mao_shared.models.check import Check
from mao_shared.models.node import Restored
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import BEGIN, NODE, World, context_for, run_of, runs_on, settings_for, step, working
from tests.support.git import git

from .test_restore import places, writing

RESTORED = Restored(
    backup_at=BEGIN, restored_at=BEGIN + timedelta(hours=5), tips={"data": None}, open=["data"]
)


async def ran(world: World, name: str, after: int, **changes: Any) -> Run:
    run = run_of(name, step("one", "data", world.master), after=after)
    await world.whole(run.model_copy(update=changes), writing(name))
    await world.until_gone(name)
    return await world.change(name, lambda run: run.model_copy(update={"phase": RunPhase.SUCCEEDED}))


async def saved_and_gone_on(root: Path, later: list[str]) -> tuple[MemoryStore, dict[str, Run]]:
    """Back a node up after one run, run `later`, lose the node, and restore the backup."""
    old = MemoryStore()
    async with working(root, old) as world:
        await ran(world, "run-1", 1)
        taken = await take_backup(NODE, old, places(root), root / "backup", {})
        known = {name: await ran(world, name, 2 + at) for at, name in enumerate(later)}
    shutil.rmtree(root / "node")
    new = MemoryStore()
    assert taken.path is not None
    await restore_backup(settings_for(root), new, places(root), taken.path)
    return new, known


async def reconciled(root: Path, store: Store, conditions: Conditions | None = None) -> bool:
    works = GitExecutor(2)
    try:
        runs = RunRecords(store, NODE)
        return await Reconciler(context_for(root), works, store, runs, conditions or Conditions()).reconcile()
    finally:
        works.close()


async def runs_in(store: Store) -> dict[str, Run]:
    return await Records(store, keys.runs_prefix(NODE), Run).by_name()


async def test_reconcile_records_unknown_runs(tmp_path: Path) -> None:
    store, known = await saved_and_gone_on(tmp_path, ["run-2", "run-3"])
    before = await runs_in(store)
    assert set(before) == {"run-1"}
    assert await reconciled(tmp_path, store)
    after = await runs_in(store)
    assert after["run-1"] == before["run-1"]
    for name, run in known.items():
        found, was = after[name], run
        assert (found.phase, found.trigger, found.created_at) == (was.phase, was.trigger, was.created_at)
        one, other = found.steps[0], was.steps[0]
        assert one.pushed
        for field in ("snapshot", "base_commit", "attempt", "exit", "ground_truth", "phase"):
            assert getattr(one, field) == getattr(other, field), field
        assert one.times.items() >= {k: v for k, v in other.times.items() if k != "succeeded"}.items()
    stored = await Records(store, keys.restored(NODE), Restored).get("")
    assert stored is not None
    assert stored.record.open == []


async def test_reconcile_records_quarantined_runs(tmp_path: Path) -> None:
    check = Check(name="never", file="none", on_failure="quarantine")
    old = MemoryStore()
    async with working(tmp_path, old) as world:
        await ran(world, "run-1", 1)
        taken = await take_backup(NODE, old, places(tmp_path), tmp_path / "backup", {})
        one = step("one", "data", world.master)
        checked = one.model_copy(update={"spec": one.spec.model_copy(update={"checks": [check]})})
        held = await world.whole(run_of("run-2", checked, after=2), writing("run-2"))
        assert held.quarantined
    shutil.rmtree(tmp_path / "node")
    new = MemoryStore()
    assert taken.path is not None
    await restore_backup(settings_for(tmp_path), new, places(tmp_path), taken.path)
    assert await reconciled(tmp_path, new)
    found = (await runs_in(new))["run-2"].steps[0]
    assert (found.phase, found.snapshot, found.checks) == (StepPhase.SUCCEEDED, None, held.checks)
    assert found.quarantine == held.quarantine
    async with working(tmp_path, new) as world:
        accepted = await world.manager.quarantine.accept("data", "run-2", Decision("accepted"))
        assert accepted.accepted_as == git(world.master, "rev-parse", NODE)
        assert runs_on(world.master) == ["run-2", "run-1"]


async def test_reconcile_corrects_a_missed_tick(tmp_path: Path) -> None:
    store, _ = await saved_and_gone_on(tmp_path, ["run-2"])
    runs = Records(store, keys.runs_prefix(NODE), Run)
    missed = run_of("run-2", step("one", "data", tmp_path / "master.git"), after=2).model_copy(
        update={"phase": RunPhase.MISSED, "missed": "late", "reason": "nobody knows", "steps": []}
    )
    await runs.create("run-2", missed)
    assert await reconciled(tmp_path, store)
    run = (await runs_in(store))["run-2"]
    assert (run.phase, run.missed, run.reason) == (RunPhase.SUCCEEDED, None, None)
    assert run.steps[0].phase is StepPhase.SUCCEEDED


async def settle(store: Store) -> None:
    """Move all runs into the run history, as retention does."""
    records = RunRecords(store, NODE)
    live, _ = await records.live_page(100, None)
    assert await records.move(live) == len(live)


async def test_reconcile_corrects_the_run_history(tmp_path: Path) -> None:
    """The etcd is shared with other nodes, so the federation's keys are still there."""
    old, new, shared = MemoryStore(), MemoryStore(), keys.registry("tools", "t")
    await old.create(shared, b"{}")
    async with working(tmp_path, old) as world:
        was = await ran(world, "run-1", 1)
        await settle(old)
        taken = await take_backup(NODE, old, places(tmp_path), tmp_path / "backup", {})
        await ran(world, "run-2", 2)
    shutil.rmtree(tmp_path / "node")
    await new.create(shared, b"{}")
    assert taken.path is not None
    await restore_backup(settings_for(tmp_path), new, places(tmp_path), taken.path)
    records = RunRecords(new, NODE)
    missed = was.model_copy(update={"id": "run-2", "phase": RunPhase.MISSED, "missed": "late", "steps": []})
    assert await records.create("run-2", missed)
    await settle(new)
    assert await reconciled(tmp_path, new)
    found = {name: await records.get(name) for name in ("run-1", "run-2")}
    assert {name: run and run.record.phase for name, run in found.items()} == dict.fromkeys(
        found, RunPhase.SUCCEEDED
    )
    assert found["run-1"] is not None
    assert found["run-1"].record == was
    await settle(new)
    indexed, _ = await records.index_page(10, None)
    assert {entry.id for entry in indexed} == set(found)
    assert await records.remove(indexed) == 2


async def test_reconcile_waits_for_the_remote(tmp_path: Path) -> None:
    store, known = await saved_and_gone_on(tmp_path, ["run-2"])
    (tmp_path / "master.git").rename(tmp_path / "away.git")
    conditions = Conditions()
    assert not await reconciled(tmp_path, store, conditions)
    [condition] = conditions.current()
    assert (condition.name, condition.subject) == ("restored", "data")
    assert set(await runs_in(store)) == {"run-1"}
    (tmp_path / "away.git").rename(tmp_path / "master.git")
    assert await reconciled(tmp_path, store, conditions)
    assert set(await runs_in(store)) == {"run-1", *known}


async def test_reconcile_twice_changes_nothing(tmp_path: Path) -> None:
    store, _ = await saved_and_gone_on(tmp_path, ["run-2"])
    assert await reconciled(tmp_path, store)
    revision = store.revision
    assert await reconciled(tmp_path, store)
    assert store.revision == revision


async def test_reconcile_leaves_later_runs_alone(tmp_path: Path) -> None:
    store, _ = await saved_and_gone_on(tmp_path, ["run-2"])
    async with working(tmp_path, store) as world:
        fresh = run_of("run-9", step("one", "data", world.master), step("two", "data", world.master))
        later = await Records(store, keys.restored(NODE), Restored).get("")
        assert later is not None
        await world.begin(
            fresh.model_copy(update={"created_at": later.record.restored_at + timedelta(minutes=1)})
        )
        await world.run_tool("run-9", writing("nine"))
        await world.phase("run-9", StepPhase.SUCCEEDED)
        assert await reconciled(tmp_path, store)
        run = (await world.get("run-9")).record
        assert (run.phase, run.steps[1].phase) == (RunPhase.RUNNING, StepPhase.PENDING)
    assert runs_on(tmp_path / "master.git") == ["run-9", "run-2", "run-1"]


async def test_reconcile_ignores_forged_commits(tmp_path: Path) -> None:
    store, _ = await saved_and_gone_on(tmp_path, [])
    master = tmp_path / "master.git"
    tip, tree = (git(master, "rev-parse", f"{NODE}{suffix}") for suffix in ("", "^{tree}"))
    begin, end = "=== Do not change lines below ===", "^^^ Do not change lines above ^^^"
    for number, record in enumerate(
        ("{}", '{"mao": {"node": "node-1"}}', '{"mao": {"node": "node-1", "image": 3}}', "[")
    ):
        text = f"x\n\n{begin}\n{record}\n{end}\n\nMAO-Run: evil-{number}\nMAO-Step: one\n"
        tip = git(master, "commit-tree", tree, "-p", tip, "-m", text)
    git(master, "update-ref", f"refs/heads/{NODE}", tip)
    assert await reconciled(tmp_path, store)
    assert set(await runs_in(store)) == {"run-1"}


# several steps: pure


def found(name: str, dataset: str = "data", **record: Any) -> StepCommit:
    spec = step(name, dataset, "/remote").spec
    facts = {
        "pipeline": "pipeline",
        "node": NODE,
        "trigger": "schedule",
        "scheduled_for": "2026-01-31T12:30:00Z",
        "created_at": "2026-01-31T12:30:00Z",
        "tool": name,
        "image": spec.image.model_dump(),
        "output": {"dataset": dataset, "branch": NODE, "base": "b" * 40},
        "times": {},
        **record,
    }
    return StepCommit(
        "r", name, dataset, "/remote", "c" * 40, BEGIN + timedelta(minutes=40), True, False, facts
    )


def enrolment(*names: str) -> Enrolment:
    specs = [step(name, "data", "/remote").spec for name in names]
    return Enrolment(pipeline="pipeline", node=NODE, steps=specs, pipeline_revision=1, enrolled_at=BEGIN)


def phases(run: Run | None) -> tuple[str, list[str]]:
    assert run is not None
    return run.phase.value, [step.phase.value for step in run.steps]


@pytest.mark.parametrize(
    ("known", "names", "expected"),
    [
        (["one", "two"], ["one", "two"], ("succeeded", ["succeeded", "succeeded"])),
        (["one"], ["one", "two"], ("lost", ["succeeded", "lost"])),
        (["two"], ["one", "two"], ("succeeded", ["skipped", "succeeded"])),
        (["two"], ["one", "two", "three"], ("lost", ["skipped", "succeeded", "lost"])),
        (["one"], ["other"], ("succeeded", ["succeeded"])),  # the pipeline is another since
    ],
)
def test_reconcile_run_of_several_steps(
    known: list[str], names: list[str], expected: tuple[str, list[str]]
) -> None:
    run = reconstruct_run([found(name) for name in known], None, enrolment(*names), RESTORED)
    assert phases(run) == expected


def test_reconcile_without_an_enrolment() -> None:
    run = reconstruct_run([found("one", env={"A": "b"}, command=["x"])], None, None, RESTORED)
    assert phases(run) == ("succeeded", ["succeeded"])
    assert run is not None
    assert (run.steps[0].spec.env, run.steps[0].spec.command) == ({"A": "b"}, ["x"])


def test_reconcile_datasets_one_by_one() -> None:
    names = enrolment("one", "two")
    first = reconstruct_run([found("one")], None, names, RESTORED)
    assert phases(first) == ("lost", ["succeeded", "lost"])
    assert first is not None
    assert phases(reconstruct_run([found("two")], first, names, RESTORED)) == (
        "succeeded",
        ["succeeded", "succeeded"],
    )
    other_way = reconstruct_run([found("two")], None, names, RESTORED)
    assert phases(reconstruct_run([found("one")], other_way, names, RESTORED)) == (
        "succeeded",
        ["succeeded", "succeeded"],
    )


@pytest.mark.parametrize("phase", [RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED, RunPhase.LOST])
def test_reconcile_keeps_ended_runs(phase: RunPhase) -> None:
    run = run_of("r", step("one", "data", "/remote")).model_copy(update={"phase": phase})
    assert reconstruct_run([found("one")], run, None, RESTORED) is None


@pytest.mark.parametrize("phase", [RunPhase.LOST, RunPhase.CANCELLED])
def test_reconcile_corrects_runs_ended_by_the_restore(phase: RunPhase) -> None:
    lost: StepRun = step("one", "data", "/remote").model_copy(update={"phase": StepPhase.LOST})
    run = run_of("r", step("one", "data", "/remote"))
    run = run.model_copy(update={"phase": phase, "error": restored_failure(BEGIN), "steps": [lost]})
    changed = reconstruct_run([found("one")], run, None, RESTORED)
    assert phases(changed) == ("succeeded", ["succeeded"])
    assert changed is not None
    assert changed.error is None
