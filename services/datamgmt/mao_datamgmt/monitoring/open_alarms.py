"""The number of alarms that nobody has acknowledged, by kind, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Alarm
from mao_shared.reconcile import Mirror
from mao_shared.store import Records, Store, Unreadable


class OpenAlarms:
    """Follows the alarms of a node; `report` is called with kind and number after each change."""

    def __init__(
        self,
        node: str,
        store: Store,
        report: Callable[[str, int], object],
        unreadable: Unreadable,
        conditions: Conditions,
    ) -> None:
        prefixes = (keys.condition_alarms_prefix(node), keys.alarms_prefix(node))
        self._mirrors = [
            Mirror(Records(store, prefix, Alarm, unreadable), _is_open, conditions=conditions)
            for prefix in prefixes
        ]
        self._report = report
        self._reported: set[str] = set()
        for mirror in self._mirrors:
            mirror.subscribe(self._changed)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the loops that follow the alarms."""
        return [mirror.run() for mirror in self._mirrors]

    def _changed(self, _: str) -> None:
        kinds = Counter(stored.record.kind for mirror in self._mirrors for _, stored in mirror.items())
        for kind in sorted({*kinds, *self._reported}):
            self._report(kind, kinds[kind])
        self._reported |= set(kinds)


def _is_open(alarm: Alarm) -> bool:
    return alarm.acknowledged is None and alarm.over is None
