"""Reports nodes of the federation that have not been seen for long (condition `node-silent`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from mao_registry.records.stores import Repositories
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.federation import FederationStore
from mao_shared.models import Identity, PeerNode, format_time
from mao_shared.reconcile import every
from mao_shared.store import Records

CHECK_PERIOD = 300.0  # seconds
FIRST_CHECK_SECONDS = 90.0  # other nodes may start with this one; an alarm stays open for so long and longer


def silent_nodes(
    identities: Iterable[Identity],
    present: Iterable[str],
    seen: Mapping[str, datetime],
    now: datetime,
    patience: timedelta,
) -> dict[str, datetime]:
    """Return the joined nodes that are absent and were not seen for `patience`, with when they were. Pure.

    A node that never reported itself counts as seen when it joined.
    """
    here = set(present)
    silent: dict[str, datetime] = {}
    for identity in identities:
        last = seen.get(identity.node) or identity.joined_at
        if identity.state != "joined" or identity.node in here or last is None:
            continue
        if now - last > patience:
            silent[identity.node] = last
    return silent


class SilentNodes:
    """Checks the other nodes of the federation while `run` runs. `patience`: in seconds."""

    def __init__(
        self, repositories: Repositories, clock: Clock, patience: float, conditions: Conditions
    ) -> None:
        self._repositories, self._clock, self._conditions = repositories, clock, conditions
        self._patience = timedelta(seconds=patience)

    async def run(self) -> None:
        """Check until cancelled."""
        await every(
            CHECK_PERIOD,
            self.check,
            name="silent-nodes",
            initial_delay=FIRST_CHECK_SECONDS,
            conditions=self._conditions,
        )

    async def check(self) -> None:
        """Report and clear the condition; it stays as it is while the federation does not answer."""
        shared = self._repositories.federation
        if self._repositories.one_store:
            self._conditions.clear_all_but("node-silent", ())
            return
        identities = Records(shared, keys.identities_prefix(), Identity, self._repositories.unreadable)
        others = [one for one in (await identities.by_name()).values() if one.node != self._repositories.node]
        present = await self._repositories.members.by_name()
        seen: dict[str, datetime] = {}
        for one in others:
            record = await self._last_seen(one.node) if one.node not in present else None
            if record is not None:
                seen[one.node] = record.seen_at
        if isinstance(shared, FederationStore) and shared.away_since:
            return  # these are copies, from which nobody's silence is known
        silent = silent_nodes(others, present, seen, self._clock.now(), self._patience)
        for node, last in sorted(silent.items()):
            self._conditions.report(
                "node-silent",
                node,
                detail=f"The node {node} was last seen at {format_time(last.replace(microsecond=0))}.",
                next_step=f"Ask its operator; if it is gone for good: maoctl federation remove {node}",
            )
        self._conditions.clear_all_but("node-silent", silent)

    async def _last_seen(self, node: str) -> PeerNode | None:
        entry = await self._repositories.federation.get(keys.peer_node(node))
        if entry is None:
            return None
        records = Records(self._repositories.federation, entry.key, PeerNode)
        try:
            return records.parse(entry).record
        except RecordUnreadable:
            return None
