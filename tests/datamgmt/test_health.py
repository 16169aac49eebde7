"""Conditions of the node's data: old unpushed commits, failing remotes, disks at each threshold."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_datamgmt.datasets.push import Pusher
from mao_shared.errors import MaoError, RemoteUnavailable, Unavailable
from mao_shared.models.node import Condition
from mao_shared.reconcile import background
from tests.support.waiting import eventually

from .world import World, run_of, step, working, writes

MIB = 1 << 20
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")


def conditions_of(world: World, name: str) -> list[Condition]:
    return [condition for condition in world.manager.conditions.current() if condition.name == name]


async def unpushed_in(world: World) -> list[Condition]:
    await world.manager.health.check_outboxes()
    return conditions_of(world, "unpushed")


async def test_health_overdue_commits_are_a_condition_until_pushed(
    tmp_path: Path,
) -> None:
    async with working(tmp_path, outbox_alarm=0, push_retry=3600) as world:
        await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
        assert await unpushed_in(world) == []
        world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=1), writes(a="2"))
        [told] = await unpushed_in(world)
        assert (told.subject, told.state) == ("data", "degraded")
        assert told.detail.startswith("1 commits of dataset data wait")
        assert "maoctl dataset push data" in told.next
        (tmp_path / "away.git").rename(world.master)
        await world.manager.push_now("data")
        assert conditions_of(world, "unpushed") + conditions_of(world, "remote") == []


async def test_health_young_commits_are_none(tmp_path: Path) -> None:
    async with working(tmp_path, push_retry=3600) as world:
        await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
        world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=1), writes(a="2"))
        assert await unpushed_in(world) == []


def failing(code: str) -> MaoError:
    return RemoteUnavailable("It is so.", code=code, next="Do this.")


@pytest.mark.parametrize(
    "code", ["push-refused", "remote-auth-failed", "host-key-changed", "branch-rewritten"]
)
async def test_health_remote_in_trouble_is_told_until_it_takes_all(tmp_path: Path, code: str) -> None:
    async with working(tmp_path, push_retry=3600) as world:
        world.manager.pusher.push_later("data", failing(code))
        [told] = conditions_of(world, "remote")
        assert (told.subject, told.detail, told.next) == ("data", "It is so.", "Do this.")
        world.manager.pusher.note_pushed("data")
        assert conditions_of(world, "remote") == []


@pytest.mark.parametrize("code", ["disk-full", "disk-trouble"])
async def test_health_trouble_of_the_node_itself_is_not_put_on_the_remote(tmp_path: Path, code: str) -> None:
    async with working(tmp_path, push_retry=3600) as world:
        world.manager.pusher.push_later("data", failing("push-refused"))
        world.manager.pusher.push_later("data", Unavailable("No room.", code=code))
        assert conditions_of(world, "remote") == []
    assert isinstance(world.manager.pusher, Pusher)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 MiB with 6000 inodes."""
    folder = tmp_path / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=6000", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


@needs_mount
async def test_health_disk_reports_each_threshold_and_recovery(
    small_disk: Path,
) -> None:
    async with working(small_disk, min_free=16 * MIB) as world:
        ballast = small_disk / "ballast"
        seen, pauses = [], []
        for left in (40, 24, 8, 40):  # MiB: enough; below twice the reserve; below it; enough again
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            size = ballast.stat().st_size if ballast.exists() else 0
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size + free - left * MIB)
            pauses.append(await world.manager.health.check_disk())
            shortage = (await world.manager.storage()).disk.shortage
            seen.append(
                ([condition.state for condition in conditions_of(world, "disk")], shortage is not None)
            )
        assert seen == [([], False), (["degraded"], False), (["failed"], True), ([], False)]
        assert pauses[2] < pauses[0] == pauses[1] == pauses[3]


@needs_mount
async def test_health_disk_without_inodes_is_failed_and_nothing_is_begun(small_disk: Path) -> None:
    async with working(small_disk, min_free=1) as world:
        for number in range(os.statvfs(small_disk).f_favail - 500):
            (small_disk / f"empty-{number}").touch()
        await world.manager.health.check_disk()
        [told] = conditions_of(world, "disk")
        assert told.state == "failed"
        assert "inodes" in told.detail
        assert (await world.manager.storage()).disk.shortage is not None


@needs_mount
async def test_health_disk_that_is_read_only_is_failed(small_disk: Path) -> None:
    async with working(small_disk) as world:
        run("mount", "-o", "remount,ro", str(small_disk))
        await world.manager.health.check_disk()
        [told] = conditions_of(world, "disk")
        assert (told.state, "not writable" in told.detail, "mounted for writing" in told.next) == (
            "failed",
            True,
            True,
        )
        run("mount", "-o", "remount,rw", str(small_disk))


@needs_mount
async def test_health_folder_on_another_file_system_is_told_by_its_name(tmp_path: Path) -> None:
    async with working(tmp_path, min_free=16 * MIB) as world:
        logs = world.manager.context.data.root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(logs))
        try:
            await world.manager.health.check_disk()
            [told] = conditions_of(world, "disk")
            assert (told.subject, told.state) == ("logs", "failed")
            assert "No run starts" not in told.detail  # which is not so
        finally:
            run("umount", "-l", str(logs))
        await world.manager.health.check_disk()
        assert conditions_of(world, "disk") == []


async def test_health_looks_run_by_themselves(tmp_path: Path) -> None:
    async with working(tmp_path, min_free=2**60) as world, background(world.manager.health.run()):
        await eventually(lambda: conditions_of(world, "disk"))
