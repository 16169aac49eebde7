"""Packing of clones loses nothing when it is killed at any point; shallow clones can publish."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.upkeep import tidy
from mao_git import Clone, maintenance
from mao_shared.states import StepPhase
from tests.datamgmt.world import NODE, World, run_of, runs_on, step, working, writes
from tests.support.git import bare_repository, file_at, git
from tests.support.sshd import ssh_server


async def some_runs(world: World, count: int) -> None:
    for number in range(count):
        run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
        done = await world.whole(run, writes(f=str(number), d__g=str(-number)))
        assert done.phase is StepPhase.SUCCEEDED, done.error


def counts(clone: Path) -> dict[str, int]:
    lines = (line.split(": ") for line in git(clone, "count-objects", "-v").splitlines())
    return {name: int(value) for name, value in lines}


async def test_pack_keeps_all_objects(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await some_runs(world, 3)
        path = world.manager.context.data.clone("data")
        clone = Clone.open(path)
        (large,) = [clone.write_tree(clone.tree(None), {"x": _large()})]
        before = set(git(path, "cat-file", "--batch-all-objects", "--batch-check").splitlines())
        assert clone.pack() > 10
        assert set(git(path, "cat-file", "--batch-all-objects", "--batch-check").splitlines()) == before
        assert (counts(path)["count"], counts(path)["packs"]) == (1, 1)  # the large one
        assert Clone.open(path).has_object(large)
        assert git(path, "fsck", "--full", "--strict", "--no-dangling") == ""
        await some_runs_more(world)
        assert git(world.master, "fsck", "--full", "--strict") == ""


def _large() -> mao_git.Content:
    noise = os.urandom(2 << 20)
    return mao_git.Content(lambda: io.BytesIO(noise), len(noise))


async def some_runs_more(world: World) -> None:
    done = await world.whole(run_of("run-9", step("collect", "data", world.master), after=9), writes(z="z"))
    assert done.phase is StepPhase.SUCCEEDED, done.error
    Clone.open(world.manager.context.data.clone("data")).pack()
    assert runs_on(world.master)[0] == "run-9"


async def test_pack_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with working(tmp_path) as world:
        await some_runs(world, 2)
        path = world.manager.context.data.clone("data")

        def killed(_: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(maintenance, "sync_folder", killed)
            with pytest.raises(KeyboardInterrupt):
                Clone.open(path).pack()
        assert git(path, "fsck", "--full", "--strict", "--no-dangling") == ""
        Clone.open(path).pack()
        Clone.open(path).pack()
        assert counts(path)["count"] == 0
        assert git(path, "fsck", "--full", "--strict", "--no-dangling") == ""


async def test_tidy_packs_and_removes_idle_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MAX_LOOSE", 0)
    async with working(tmp_path) as world:
        await some_runs(world, 1)
        await world.until_gone("run-0")
        context = world.manager.context
        tidy(context, "data", timedelta(days=1))
        assert counts(context.data.clone("data"))["count"] == 0
        assert context.data.worktree("data").is_dir()
        tidy(context, "data", timedelta(days=-1))
        assert not context.data.worktree("data").exists()


async def test_shallow_clone_publishes_and_follows(tmp_path: Path) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(remote), str(work))
    for number in range(5):
        (work / "f").write_text(str(number))
        git(work, "add", "f")
        git(work, "commit", "-qm", f"{number}")
    git(work, "push", "-q", "origin", f"HEAD:{NODE}", "HEAD:ground-truth")
    with ssh_server(tmp_path / "ssh") as server:
        async with working(tmp_path, ssh_dir=server.key_dir, clone_depth=1) as world:
            url = server.url(remote)
            done = await world.whole(run_of("run-1", step("collect", "data", url)), writes(g="1"))
            assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, True), done
            clone = world.manager.context.data.clone("data")
            assert git(clone, "rev-parse", "--is-shallow-repository") == "true"
            assert git(clone, "rev-list", "--count", NODE) == "2"
            assert git(remote, "rev-list", "--count", NODE) == "6"
            git(work, "pull", "-q", "origin", NODE)
            (work / "f").write_text("by a stranger")
            git(work, "commit", "-qam", "by a stranger")
            git(work, "push", "-q", "origin", f"HEAD:{NODE}")
            done = await world.whole(run_of("run-2", step("collect", "data", url), after=1), writes(g="2"))
            assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, True), done
            assert file_at(remote, f"{NODE}:f") == "by a stranger"
            assert git(remote, "rev-list", "--count", NODE) == "8"
            git(remote, "fsck", "--full", "--strict")
