"""Rounds in memory, found by their dataset: a look at one dataset does not go through those of all."""

from __future__ import annotations

from collections.abc import Callable

from mao_shared.models import Round
from mao_shared.reconcile import Mirror
from mao_shared.store import Stored


class RoundsOf:
    """Follows a mirror of all rounds; made before others subscribe to it, so that those see it up to date."""

    def __init__(self, mirror: Mirror[Round]) -> None:
        self._mirror = mirror
        self._of: dict[str, dict[str, Stored[Round]]] = {}
        self._subscribers: list[Callable[[Round], None]] = []
        self._of_first: list[Callable[[str], None]] = []
        for name, _ in mirror.items():
            self._changed(name)
        mirror.subscribe(self._changed)

    def of(self, dataset: str) -> dict[str, Stored[Round]]:
        """The dataset's rounds by id, as they are now: what the caller gets does not change any more."""
        return dict(self._of.get(dataset, {}))

    def datasets(self) -> list[str]:
        """Those that have rounds."""
        return list(self._of)

    def on_gone(self, callback: Callable[[Round], None]) -> None:
        """Has `callback` called with each round that goes from the store, as it was last seen."""
        self._subscribers.append(callback)

    def on_first(self, callback: Callable[[str], None]) -> None:
        """Has `callback` called with the name of a dataset that has its first round."""
        self._of_first.append(callback)

    def _changed(self, name: str) -> None:
        dataset, _, round_id = name.partition("/")
        stored = self._mirror.get(name)
        if stored is not None:
            first = dataset not in self._of
            self._of.setdefault(dataset, {})[round_id] = stored
            for told in self._of_first if first else ():
                told(dataset)
            return
        rounds = self._of.get(dataset, {})
        gone = rounds.pop(round_id, None)
        if not rounds:
            self._of.pop(dataset, None)
        if gone is not None:
            for callback in self._subscribers:
                callback(gone.record)
