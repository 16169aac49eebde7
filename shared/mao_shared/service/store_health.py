"""Periodic check that the node's store answers, accepts writes and has free space.

A store that answers reads but refuses writes (etcd's alarm NOSPACE) is unhealthy; etcd reports that itself,
so the check writes nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.models.node import ConditionState
from mao_shared.reconcile import every
from mao_shared.store import Examinable, Store, StoreHealth

CHECK_PERIOD = 20.0  # seconds
CHECK_PERIOD_UNHEALTHY = 2.0  # seconds, while the store is unhealthy
NEARLY_FULL = 0.8  # share of the quota
SLOW_READ_SECONDS = 1.0  # reported after two in a row
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreFinding:
    """A problem of the store, with the next step."""

    state: ConditionState
    detail: str
    next: str


def judge_store(health: StoreHealth, quota: int) -> StoreFinding | None:
    """Return the problem of a store that answers, or None. `quota` in bytes. Pure."""
    if "CORRUPT" in health.alarms:
        return StoreFinding(
            "failed",
            "etcd's data are corrupt (alarm CORRUPT); it accepts no writes.",
            "Stop the node, move its folder 'etcd' away, and restore its last backup: maoctl node restore "
            "FILE --replace. Git has all data of the datasets.",
        )
    if "NOSPACE" in health.alarms:
        return StoreFinding(
            "failed",
            f"etcd is full ({health.size / MIB:.0f} MiB, alarm NOSPACE) and accepts no writes.",
            "Make room: etcdctl compact (to the newest revision), etcdctl defrag, etcdctl alarm disarm; "
            "or give etcd a larger --quota-backend-bytes. See docs/operations.md.",
        )
    if health.size >= NEARLY_FULL * quota:
        share = 100 * health.size / quota
        return StoreFinding(
            "degraded",
            f"etcd's database has {health.size / MIB:.0f} MiB, {share:.0f} % of its quota.",
            "Make room (etcdctl compact, then etcdctl defrag) or give etcd a larger --quota-backend-bytes "
            "and set MAO_ETCD_QUOTA to the same value. A full etcd accepts no writes.",
        )
    return None


class StoreHealthWatch:
    """Reports the condition `store` while `run` runs."""

    def __init__(self, store: Store, conditions: Conditions, quota: int) -> None:
        self._store = store
        self._conditions = conditions
        self._quota = quota
        self._slow = 0  # consecutive slow reads

    async def run(self) -> None:
        """Check until cancelled."""
        await every(0.0, self._look_and_pause, name="store-watch", conditions=self._conditions)

    async def _look_and_pause(self) -> float:
        return CHECK_PERIOD if await self.check() else CHECK_PERIOD_UNHEALTHY

    async def check(self) -> bool:
        """Check once; return whether the store is healthy."""
        began = time.monotonic()
        try:
            await self._store.ping()
            took = time.monotonic() - began
            health = await self._store.examine() if isinstance(self._store, Examinable) else None
        except MaoError as error:
            self._report(StoreFinding("failed", error.detail, error.next or "Check etcd's log."))
            return False
        self._slow = self._slow + 1 if took >= SLOW_READ_SECONDS else 0
        finding = None if health is None else judge_store(health, self._quota)
        if finding is None and self._slow > 1:
            advice = "Check what else uses the disk of etcd's data and the machine: etcd needs fast fsync."
            finding = StoreFinding(
                "degraded", f"etcd is slow: a read takes more than {SLOW_READ_SECONDS:g} s.", advice
            )
        if finding is None:
            self._conditions.clear("store")
            return True
        self._report(finding)
        return False

    def _report(self, finding: StoreFinding) -> None:
        self._conditions.report("store", detail=finding.detail, next_step=finding.next, state=finding.state)
