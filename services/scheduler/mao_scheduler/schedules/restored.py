"""What it means for ticks that the node was restored from a backup."""

from __future__ import annotations

from datetime import datetime

from mao_shared import keys
from mao_shared.errors import Conflict
from mao_shared.models.restored import Restored
from mao_shared.store import Records, Store


class Restores:
    """Reads the record that a restore has left in the node's store."""

    def __init__(self, store: Store, node: str) -> None:
        self._records = Records(store, keys.restored(node), Restored)

    async def read(self) -> Restored | None:
        """Of the last restore; None on a node that never was restored."""
        stored = await self._records.get("")
        return None if stored is None else stored.record

    async def require_looked_up(self, since: datetime) -> None:
        """Raises Conflict (`restore-open`) for a time of which not all datasets have said what was run."""
        restored = await self.read()
        if restored is not None and restored.open and since <= restored.restored_at:
            raise Conflict(
                "This node was restored from a backup, and what was run after that is not looked up yet in "
                f"{', '.join(restored.open[:5])}.",
                code="restore-open",
                next="Let the dataset's remote answer (maoctl doctor tells), and try again.",
            )
