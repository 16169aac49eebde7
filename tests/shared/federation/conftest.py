from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mao_shared.federation import replicator
from mao_shared.federation.replicator import Replicator
from mao_shared.reconcile import background

from .world import World


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path)
    monkeypatch.setattr(replicator, "HELD_CHECK_PERIOD", 0.01)
    copy = Replicator(made.store, every=0.05, seconds=lambda: made.seconds)
    async with background(made.store.run(), copy.run()):
        assert await made.store.alone()
        yield made
    await made.store.close()
