"""Three nodes, one dataset, one remote: snapshots are announced, pinned, voted, attested and decided."""

from __future__ import annotations

from pathlib import Path

from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes

from .federation import federation


async def test_ten_ticks_ten_rounds_one_commit_each(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), processes=True) as fed:
        for number in range(10):
            text = f"value\n{number}\n"
            await fed.collect(number, [writes(a=text), writes(a=text), writes(a=text + "wrong\n")])
            done = await fed.ended(number)
            assert done.phase == "decided", done.reason
            assert fed.show("a") == text.strip()
        rounds = await fed.rounds()
        assert [each.phase for each in rounds] == ["decided"] * 10
        assert fed.truth() == [each.id for each in reversed(rounds)]
        assert all(not each.flagged for each in rounds)
