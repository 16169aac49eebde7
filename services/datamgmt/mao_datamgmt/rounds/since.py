"""When a node itself heard rounds begin and saw them closed: a record's times are anybody's to write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from mao_shared.models import Round
from mao_shared.store import Stored


class Since:
    """Of one node, by its own clock. Lost with the process: what was there before counts as missed."""

    def __init__(self) -> None:
        self._begun: defaultdict[str, dict[str, datetime | None]] = defaultdict(dict)
        self._closed: defaultdict[str, dict[str, tuple[int, datetime]]] = defaultdict(dict)

    def note(
        self,
        dataset: str,
        rounds: Mapping[str, Stored[Round]],
        heard: Iterable[str],
        now: datetime,
        *,
        settled: bool,
    ) -> None:
        """Takes in what is there now. `settled`: what is new has begun just now."""
        ids = {*rounds, *heard}
        known = self._begun[dataset]
        self._begun[dataset] = {each: known.get(each, now if settled else None) for each in ids}
        before = self._closed[dataset]
        self._closed[dataset] = {
            name: _closed(before.get(name), each.record, now)
            for name, each in rounds.items()
            if each.record.phase == "closed"
        }

    def begun(self, dataset: str) -> dict[str, datetime]:
        """Round → when it began, of those that this node has heard begin."""
        return {each: moment for each, moment in self._begun[dataset].items() if moment is not None}

    def closed(self, dataset: str) -> dict[str, datetime]:
        """Round → when it was first seen closed in its present attempt."""
        return {each: moment for each, (_, moment) in self._closed[dataset].items()}


def _closed(before: tuple[int, datetime] | None, round_: Round, now: datetime) -> tuple[int, datetime]:
    return before if before is not None and before[0] == round_.attempt else (round_.attempt, now)
