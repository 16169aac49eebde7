"""Which preparing steps wait, and for what: a change wakes those which it may let go on and no others.

Hundreds of runs may wait for rounds while a node is away: were all of them looked at after each change, the
work would grow with their square.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from mao_datamgmt.rounds.peer_records import part_of
from mao_datamgmt.rounds.voters import Voters
from mao_shared.models import Round, Run
from mao_shared.reconcile import Mirror

from .queue import Place

K = TypeVar("K")


def _stamp(tick: datetime) -> str:
    """How the ids of a tick's rounds begin."""
    return f"{tick:%Y%m%dT%H%M%SZ}"


class Waits:
    """A run waits for one thing at a time. `wake` is called with each run that may go on now."""

    def __init__(self) -> None:
        self.wake: Callable[[str], None] = lambda _: None
        self._rounds: dict[str, tuple[str, str]] = {}  # run → dataset, stamp of its tick
        self._of_round: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._behind: dict[str, str] = {}  # run → the run of an earlier tick
        self._followers: defaultdict[str, set[str]] = defaultdict(set)
        self._lines: defaultdict[str, dict[str, Place]] = defaultdict(dict)  # dataset → run → its place
        self._line_of: dict[str, str] = {}
        self._room: set[str] = set()

    def __len__(self) -> int:
        return len(self._rounds) + len(self._behind) + len(self._line_of) + len(self._room)

    def held_back(self) -> set[str]:
        """Runs that wait for a round, or behind one that does."""
        return {*self._rounds, *self._behind}

    def over(self, run: str) -> None:
        """The run does not wait any more; if it was the first in a line, the next one is."""
        if (place := self._rounds.pop(run, None)) is not None:
            _drop(self._of_round, place, run)
        if (other := self._behind.pop(run, None)) is not None:
            _drop(self._followers, other, run)
        if (dataset := self._line_of.pop(run, None)) is not None:
            first = self._head(dataset) == run
            del self._lines[dataset][run]
            if not self._lines[dataset]:
                del self._lines[dataset]
            elif first:
                self.wake(self._head(dataset))
        self._room.discard(run)

    def for_round(self, run: str, dataset: str, tick: datetime) -> None:
        known = run in self._rounds or run in self._behind
        self.over(run)
        self._rounds[run] = (dataset, _stamp(tick))
        self._of_round[self._rounds[run]].add(run)
        self._let_pass(known=known)

    def behind(self, run: str, other: str) -> None:
        known = run in self._rounds or run in self._behind
        self.over(run)
        self._behind[run] = other
        self._followers[other].add(run)
        self._let_pass(known=known)

    def _let_pass(self, *, known: bool) -> None:
        """A run that is held back stands in nobody's way from then on."""
        if not known:
            self._wake_heads()

    def for_dataset(self, run: str, dataset: str, place: Place) -> bool:
        """Whether the run is the first in the dataset's line, which is looked at when another run changes."""
        if self._line_of.get(run) != dataset:
            self.over(run)
        self._line_of[run] = dataset
        self._lines[dataset][run] = place
        return self._head(dataset) == run

    def for_room(self, run: str) -> None:
        self.over(run)
        self._room.add(run)

    def _head(self, dataset: str) -> str:
        line = self._lines[dataset]
        return min(line, key=line.__getitem__)

    def _wake_heads(self) -> None:
        for dataset in list(self._lines):
            self.wake(self._head(dataset))

    def _wake_all(self, runs: Iterable[str]) -> None:
        for run in list(runs):
            self.wake(run)

    # what may let somebody go on

    def follow(self, runs: Mirror[Run], rounds: Mirror[Round], voters: Voters) -> None:
        runs.subscribe(self.run_changed)
        rounds.subscribe(self.round_changed)
        voters.heard.mirror.subscribe(self.said)
        voters.members.subscribe(lambda _: self._wake_all(self._rounds))

    def run_changed(self, run: str) -> None:
        self._wake_heads()
        self._wake_all(self._followers.get(run, ()))
        self._wake_all(self._room)

    def round_changed(self, name: str) -> None:
        dataset, _, round_id = name.partition("/")
        self._wake_all(self._of_round.get((dataset, round_id.partition("-")[0]), ()))

    def said(self, name: str) -> None:
        """What a node says: whether it takes part in a dataset may end the wait for any of its rounds."""
        if (part := part_of(name)) is not None:
            self._wake_all(run for run, (dataset, _) in self._rounds.items() if dataset == part[0])


def _drop(of: defaultdict[K, set[str]], key: K, run: str) -> None:
    of[key].discard(run)
    if not of[key]:
        del of[key]
