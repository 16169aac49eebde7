"""Periodic backups in virtual time: when they are due, how many are kept, what is reported on failure."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.backup.schedule import BackupSchedule, backup_loops
from mao_datamgmt.backup.take import backup_name, backups_in
from mao_datamgmt.git_executor import GitExecutor
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Run
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import BEGIN, NODE, context_for, settings_for
from tests.scheduler.samples import ManualClock
from tests.support.stores import UnavailableStore

DAY = 86400.0


class Site:
    def __init__(self, root: Path, store: MemoryStore | None = None, **settings: Any) -> None:
        self.folder = root / "backups"
        self.clock = ManualClock(BEGIN)
        self.conditions = Conditions(self.clock)
        known = settings_for(root, backup_dir=self.folder, **settings)
        known.data_dir.mkdir(exist_ok=True)
        self.backups = BackupSchedule(
            known, self.folder, store if store is not None else MemoryStore(), self.clock, self.conditions
        )

    def names(self) -> list[str]:
        return [path.name for _, path in backups_in(self.folder, NODE)]

    def told(self) -> list[str]:
        return [condition.detail for condition in self.conditions.current() if condition.name == "backup"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "backups").mkdir()
    return Site(tmp_path, backup_keep=2)


async def test_schedule_first_at_once_then_periodically(site: Site) -> None:
    await site.backups.step()
    assert site.names() == [backup_name(NODE, BEGIN)]
    site.clock.turn(seconds=DAY - 30)
    assert await site.backups.step() == 30
    assert len(site.names()) == 1
    site.clock.turn(seconds=30)
    await site.backups.step()
    assert site.names() == [backup_name(NODE, BEGIN), backup_name(NODE, BEGIN + timedelta(days=1))]


async def test_schedule_keeps_the_newest_and_other_files(site: Site) -> None:
    (site.folder / "mine.tar.gz").touch()
    for _ in range(4):
        await site.backups.step()
        site.clock.turn(days=1)
    assert site.names() == [backup_name(NODE, BEGIN + timedelta(days=day)) for day in (2, 3)]
    assert (site.folder / "mine.tar.gz").exists()


async def test_schedule_after_a_restart(site: Site, tmp_path: Path) -> None:
    await site.backups.step()
    again = Site(tmp_path, backup_keep=2)
    again.clock.turn(hours=1)
    await again.backups.step()
    assert len(again.names()) == 1


async def test_schedule_with_a_clock_set_back(site: Site) -> None:
    await site.backups.step()
    ahead = backup_name(NODE, BEGIN)
    site.clock.turn(days=-5)
    for _ in range(6):
        assert await site.backups.step() == 60
        site.clock.turn(hours=12)
    days = [backup_name(NODE, BEGIN + timedelta(days=day)) for day in (-4, -3)]
    assert site.names() == [*days, ahead]  # the two that are kept, and what the clock that was ahead made


@pytest.mark.parametrize(
    ("trouble", "step"),
    [
        ("missing", "mkdir -m 700"),
        ("file", "Create it"),
        ("another's", f"sudo chown {os.geteuid()} "),
    ],
)
async def test_schedule_says_what_to_do_about_the_folder(
    tmp_path: Path, trouble: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    if trouble == "file":
        site.folder.touch()
    elif trouble == "another's":
        site.folder.mkdir()
        monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
        monkeypatch.setattr(os, "open", refused)
    await site.backups.step()
    [told] = [condition for condition in site.conditions.current() if condition.name == "backup"]
    assert step in told.next


def refused(path: Any, *_: Any, **__: Any) -> int:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


async def test_schedule_reports_a_missing_folder(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert await site.backups.step() == 300
    [said] = site.told()
    assert "There is none yet" in said
    assert "mkdir" in site.conditions.current()[0].next
    site.folder.mkdir()
    await site.backups.step()
    assert site.told() == []


async def test_schedule_reports_a_store_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    store = UnavailableStore()
    site = Site(tmp_path, store, backup_keep=1)
    await site.backups.step()
    site.clock.turn(days=1)
    store.away = True
    await site.backups.step()
    assert "The last one is from 2026-01-31T12:00:00Z" in site.told()[0]
    assert site.names() == [backup_name(NODE, BEGIN)]
    assert [path.name for path in site.folder.iterdir()] == site.names()
    store.away = False
    await site.backups.step()
    assert site.told() == []


async def test_schedule_reports_an_old_backup(site: Site) -> None:
    await site.backups.step()
    site.clock.turn(seconds=2 * DAY)
    await site.backups.check()
    assert site.told() == []
    site.clock.turn(seconds=1)
    await site.backups.check()
    assert site.told() == ["The last backup is from 2026-01-31T12:00:00Z."]
    await site.backups.step()
    assert site.told() == []


def test_schedule_without_a_folder(tmp_path: Path) -> None:
    store, conditions = MemoryStore(), Conditions()
    runs = Records(store, keys.runs_prefix(NODE), Run)
    works = GitExecutor(1)
    try:
        loops = backup_loops(settings_for(tmp_path), context_for(tmp_path), works, store, runs, conditions)
    finally:
        works.close()
    [only] = loops  # which looks for what a restore has left to do
    only.close()
