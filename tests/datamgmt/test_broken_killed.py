"""SIGKILL of a real data manager while it recreates a broken clone, with real etcd and git."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mao_shared.models.dataset import BrokenClone
from mao_shared.states import StepPhase
from tests.support.etcd import EtcdServer
from tests.support.git import git
from tests.support.waiting import eventually

from .test_killed import ENDED, lab
from .world import NODE, PATIENCE, runs_on

pytestmark = pytest.mark.etcd
LIVES = [
    "mao_git:fsck before",
    "mao_git:fsck after",
    "mao_datamgmt.datasets.broken:move_aside before",
    "mao_datamgmt.datasets.broken:move_aside after",
    "mao_git.repository:_init_clone before",
    "mao_git.repository:_init_clone after",
    "mao_git:salvage before",
    "mao_git:salvage after",
    "mao_git.repository:finish_clone before",
    "mao_git.repository:finish_clone after",
    "mao_datamgmt.datasets.broken:mark_rebuilt after",
]


@pytest.mark.parametrize("life", LIVES)
async def test_broken_clone_killed_while_a_clone_is_made_anew(
    etcd_server: EtcdServer, tmp_path: Path, life: str
) -> None:
    async with lab(etcd_server, tmp_path) as one:
        one.mortal.live()
        done = [await one.prepared(0)]
        await one.exit(done[0])
        await one.until(done[0], *ENDED)
        one.master.rename(tmp_path / "away")
        done.append(await one.prepared(1))  # its commit is in the clone only
        await one.exit(done[1])
        await one.until(done[1], *ENDED)
        one.mortal.kill()
        clone = one.data.clone("data")
        (clone / f"refs/heads/{NODE}").write_bytes(b"")
        (tmp_path / "away").rename(one.master)
        one.mortal.live(life)
        await asyncio.wait_for(asyncio.to_thread(one.mortal.wait), PATIENCE)
        one.mortal.live()
        done.append(await one.prepared(2))
        await one.exit(done[2])
        last = await one.until(done[2], *ENDED)
        assert last.phase is StepPhase.SUCCEEDED, last.error
        await eventually(lambda: runs_on(one.master) == done[::-1], PATIENCE)
        git(clone, "fsck", "--strict", "--full")
        (record,) = (tmp_path / "node/aside").glob("*/clone.json")
        told = BrokenClone.model_validate_json(record.read_bytes())
        assert (told.state, told.lost) == ("made-anew", {})
        assert Path(told.path).is_dir()
        assert not list(clone.parent.glob(".new-*"))
