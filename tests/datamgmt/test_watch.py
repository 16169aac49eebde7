"""Alarms about the node itself: commits that wait too long, and a disk without room."""

from __future__ import annotations

from pathlib import Path

from mao_shared.models import Alarm

from .world import World, run_of, step, working, writes


async def alarms_of(world: World) -> list[Alarm]:
    await world.manager.watch.look()
    await world.manager.watch.look()
    return (await world.manager.alarms.list_(False, 100, None)).items


async def test_commits_that_wait_too_long_are_one_alarm(tmp_path: Path) -> None:
    async with working(tmp_path, outbox_alarm=0, push_retry=3600) as world:
        await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
        assert await alarms_of(world) == []
        world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=1), writes(a="2"))
        [alarm] = await alarms_of(world)
        assert (alarm.kind, alarm.dataset) == ("outbox", "data")
        assert "maoctl dataset get data" in alarm.detail


async def test_young_commits_are_none(tmp_path: Path) -> None:
    async with working(tmp_path, push_retry=3600) as world:
        await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
        world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=1), writes(a="2"))
        assert await alarms_of(world) == []


async def test_a_disk_without_room_is_one_alarm_a_day(tmp_path: Path) -> None:
    async with working(tmp_path, min_free=2**60) as world:
        found = await alarms_of(world)
        assert [(alarm.kind, alarm.expected) for alarm in found] == [("disk", 2.0**60)]
