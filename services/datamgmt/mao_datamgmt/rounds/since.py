"""When a node itself heard rounds begin and saw them closed: a record's times are anybody's to write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models import Round

AGAIN = 3  # times that a round which begins again has its whole time again: else it could go on for ever


@dataclass(slots=True)
class _Seen:
    """`closed`: the attempt, and when it was first seen closed."""

    begun: datetime | None
    attempt: int = 1
    again: int = 0
    closed: tuple[int, datetime] | None = None


class Since:
    """Of one node, by its own clock `now`. Lost with the process: what was there before counts as missed.

    `settled`: whether what is heard has happened just now. To be called as things are heard, not later.
    """

    def __init__(self, now: Callable[[], datetime], settled: Callable[[], bool]) -> None:
        self._now, self._settled = now, settled
        self._of: defaultdict[str, dict[str, _Seen]] = defaultdict(dict)

    def _moment(self) -> datetime | None:
        return self._now() if self._settled() else None

    def hear(self, dataset: str, round_id: str) -> None:
        """Something was said of a round."""
        if round_id not in self._of[dataset]:
            self._of[dataset][round_id] = _Seen(self._moment())

    def see(self, round_: Round) -> None:
        """A round's record has changed."""
        known = self._of[round_.dataset].get(round_.id)
        if known is None:
            known = self._of[round_.dataset][round_.id] = _Seen(self._moment(), round_.attempt)
        elif round_.phase == "open" and round_.attempt > known.attempt and known.again < AGAIN:
            known.begun = self._moment()
            known.again += 1
        known.attempt = max(known.attempt, round_.attempt)
        if round_.phase == "closed" and (known.closed is None or known.closed[0] != round_.attempt):
            known.closed = round_.attempt, self._now()

    def keep(self, dataset: str, rounds: Collection[str]) -> None:
        """Forgets all others."""
        for gone in self._of[dataset].keys() - set(rounds):
            del self._of[dataset][gone]

    def begun(self, dataset: str) -> dict[str, datetime]:
        """Round → when it began, of those that this node has heard begin."""
        return {each: seen.begun for each, seen in self._of[dataset].items() if seen.begun is not None}

    def closed(self, dataset: str) -> dict[str, datetime]:
        """Round → when it was first seen closed in its last attempt."""
        found = self._of[dataset].items()
        return {
            each: seen.closed[1]
            for each, seen in found
            if seen.closed is not None and seen.closed[0] == seen.attempt
        }
