"""Unpushed commits are reported with age and reason, survive restarts, and are pushed in order."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mao_datamgmt.datasets.push import MAX_RETRY_SECONDS, SLOW_RETRY_FACTOR, retry_pause
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import bare_repository, git
from tests.support.sshd import prepare, serving
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, World, run_of, runs_on, step, working, writes

RUNS = 20


async def test_push_twenty_runs_after_remote_outage_in_order_and_once(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    away = tmp_path / "away.git"
    ids = [f"run-{number:02}" for number in range(RUNS + 1)]
    async with working(tmp_path, store) as world:
        await world.whole(run_of(ids[0], step("collect", "data", world.master)), writes(a="first"))
        world.master.rename(away)
        for number, name in enumerate(ids[1:], start=1):
            run = run_of(name, step("collect", "data", world.master), after=number)
            done = await world.whole(run, writes(a=name))
            assert done.phase is StepPhase.SUCCEEDED, done.error
        outbox = (await world.manager.status("data")).outbox
        assert (outbox.waiting, outbox.state, outbox.code) == (RUNS, "gone", "dataset-unreachable")
        assert outbox.detail is not None
        assert str(world.master) in outbox.detail
        assert outbox.since is not None
        assert outbox.next_try_at is not None
        assert outbox.tries >= 1
        await eventually(lambda: world.metric("mao_datamgmt_unpushed_commits", dataset="data") == RUNS)
        age = world.metric("mao_datamgmt_unpushed_age_seconds", dataset="data")
        assert age is not None
        await eventually(
            lambda: (world.metric("mao_datamgmt_unpushed_age_seconds", dataset="data") or 0) > age
        )
    away.rename(world.master)
    async with working(tmp_path, store) as world:  # and the data manager was restarted meanwhile
        await eventually(lambda: runs_on(world.master) == ids[::-1])
        assert runs_on(world.master, "ground-truth") == ids[::-1]

        async def in_sync() -> bool:  # noted after the push
            outbox = (await world.manager.status("data")).outbox
            return (outbox.waiting, outbox.since) == (0, None)

        await eventually_answers(in_sync)
        git(world.master, "fsck", "--strict", "--full")


async def test_push_refusal_is_told_as_one_and_tried_again_when_asked(tmp_path: Path) -> None:
    async with working(tmp_path, push_retry=3600) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        away = tmp_path / "away.git"
        world.master.rename(away)
        await world.whole(run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1"))
        status = await world.manager.push_now("data")
        assert (status.outbox.state, status.outbox.waiting, status.outbox.tries) == ("gone", 1, 2)
        away.rename(world.master)
        status = await world.manager.push_now("data")
        assert (status.outbox.state, status.outbox.waiting) == ("in-sync", 0)
        assert runs_on(world.master, NODE) == ["run-1", "run-0"]


async def test_push_rechecks_remote_after_step_without_output(
    tmp_path: Path,
) -> None:
    """Check the input's remote, which is never pushed to, and the output's after a failed tool."""
    given = bare_repository(tmp_path / "given.git")
    async with working(tmp_path, push_retry=0.05) as world:
        commit = git(given, "commit-tree", git(given, "mktree", feed=""), "-m", "empty")
        git(given, "update-ref", "refs/heads/stranger", commit)
        uses = step("use", "data", world.master, ("given", str(given), "stranger"))
        await world.whole(run_of("run-1", uses, after=1), writes(a="1"))
        aways = [(folder, folder.with_suffix(".away")) for folder in (given, world.master)]
        for here, away in aways:
            here.rename(away)
        await world.begin(run_of("run-2", uses, after=2))
        await world.phase("run-2", StepPhase.READY)
        await eventually(lambda: remotes_told(world) == ["data", "given"])
        for here, away in aways:
            away.rename(here)
        await eventually(lambda: world.manager.conditions.current() == [])


def remotes_told(world: World) -> list[str]:
    return sorted(
        condition.subject for condition in world.manager.conditions.current() if condition.name == "remote"
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EROFS, "disk-trouble")],
)
async def test_push_local_disk_error_is_attributed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    async with working(tmp_path, push_retry=0.05) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        with monkeypatch.context() as patched:
            patched.setattr("mao_datamgmt.datasets.push.push_branches", fails)
            status = await world.manager.push_now("data")
            assert status.outbox.code == code
            told = [condition.subject for condition in world.manager.conditions.current()]
            assert told == (
                [] if code == "disk-full" else ["pusher/data"]
            )  # a full one is reported as `disk`
        await eventually(lambda: world.manager.pusher.failures == {})
        assert world.manager.conditions.current() == []


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_push_pauses_grow_up_to_a_limit_and_are_spread(chance: float) -> None:
    pauses = [retry_pause(5, tries, "remote-unavailable", chance) for tries in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 5 + 5 * chance
    assert pauses[-1] == MAX_RETRY_SECONDS
    assert retry_pause(5, 1, "push-refused", chance) == SLOW_RETRY_FACTOR * pauses[0]


@pytest.mark.sshd
async def test_push_twenty_runs_in_order_after_outage(tmp_path: Path) -> None:
    server = prepare(tmp_path / "sshd")
    ids = [f"run-{number:02}" for number in range(RUNS + 1)]
    async with working(tmp_path, push_retry=3600, ssh_dir=server.key_dir) as world:
        url = server.url(world.master)
        with serving(server):
            await world.whole(run_of(ids[0], step("collect", "data", url)), writes(a="first"))
        for number, name in enumerate(ids[1:], start=1):
            await world.whole(run_of(name, step("collect", "data", url), after=number), writes(a=name))
        # without another try: a failed publish alone is counted
        await eventually(lambda: world.metric("mao_datamgmt_unpushed_commits", dataset="data") == RUNS)
        outbox = (await world.manager.push_now("data")).outbox
        assert (outbox.waiting, outbox.state, outbox.code) == (RUNS, "waiting", "remote-unavailable")
        assert outbox.next
        with serving(server):
            outbox = (await world.manager.push_now("data")).outbox
        assert (outbox.waiting, outbox.state, outbox.detail) == (0, "in-sync", None)
        for branch in (NODE, "ground-truth"):
            assert runs_on(world.master, branch) == ids[::-1]
        await eventually(lambda: world.metric("mao_datamgmt_unpushed_commits", dataset="data") == 0)
        assert world.metric("mao_datamgmt_unpushed_age_seconds", dataset="data") == 0
