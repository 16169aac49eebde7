"""Rounds go on when a node's clone breaks between two of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes

from .federation import federation

BREAKAGES: dict[str, Callable[[Path], object]] = {
    "emptied HEAD": lambda clone: (clone / "HEAD").write_bytes(b""),
    "emptied ground truth": lambda clone: (clone / "refs/remotes/origin/ground-truth").write_bytes(b""),
    "missing objects": lambda clone: shutil.rmtree(clone / "objects"),
}


@pytest.mark.parametrize("how", BREAKAGES)
async def test_round_after_clone_broke(tmp_path: Path, how: str) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        manager = fed["a"].manager
        assert manager is not None
        for number in range(3):
            await fed.collect(number, [writes(f=str(number))] * 3)
            assert (await fed.ended(number)).phase == "decided"
            assert fed.show("f") == str(number)
            if number == 0:
                BREAKAGES[how](manager.context.data.clone("data"))
        status = await manager.status("data")
        assert [clone.state for clone in status.broken_clones] == ["made-anew"]
