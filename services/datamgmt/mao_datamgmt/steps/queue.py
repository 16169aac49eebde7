"""The queue of steps for datasets, and the waiting steps that a change wakes.

A step uses a dataset's branch on this node exclusively from the checkout of its workspace to its commit.
Hundreds of runs may wait for rounds while another node is unavailable: if each change woke all of them, the
work would grow quadratically.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from mao_datamgmt.rounds.peer_records import Voters, participation_names
from mao_shared.models import Round, Run
from mao_shared.reconcile import Mirror
from mao_shared.states import HOLDS_DATASET, StepPhase

Place = tuple[bool, datetime, str]

K = TypeVar("K")


def blocked_by(
    runs: Iterable[Run],
    granted: Mapping[str, str],
    candidate: Run,
    index: int,
    held_back: Collection[str] = (),
) -> str | None:
    """Return why this preparing step has to wait, or None if it may continue.

    One step at a time uses a dataset, from the checkout of its workspace to its commit; see `queue_place` for
    the order. A reproduction needs no dataset exclusively.

    `granted` maps a dataset to the run that this process is preparing, which may not be in `runs` yet.
    `held_back` are runs that wait for a round; they block no other.
    """
    dataset = candidate.steps[index].spec.output.name
    if granted.get(dataset, candidate.id) != candidate.id:
        return _in_use_by(dataset, granted[dataset])
    ahead = None
    for run in runs:
        if run.id == candidate.id or run.reproduces is not None:
            continue
        for step_index, step in enumerate(run.steps):
            if step.spec.output.name != dataset:
                continue
            if step.phase in HOLDS_DATASET:
                return _in_use_by(dataset, run.id)
            if step.phase is StepPhase.PREPARING and run.id not in held_back:
                ahead = ahead or (
                    run.id if queue_place(run, step_index) < queue_place(candidate, index) else None
                )
    return None if ahead is None else _in_use_by(dataset, ahead)


def queue_place(run: Run, index: int) -> Place:
    """Return a step's position in the queue: steps that read ground truth come last, then by age.

    Many of the former may become ready at once when delayed rounds are decided; steps that only observe do
    not wait for all of them.
    """
    return run.steps[index].spec.reads_truth, run.created_at, run.id


def earlier_tick(runs: Iterable[Run], candidate: Run, index: int, held_back: Collection[str]) -> Run | None:
    """Return the run of the latest earlier tick whose same step waits for a round.

    A step is executed in the order of its ticks, so that the node's branch and announcements have that order.
    """
    if candidate.scheduled_for is None or not held_back:
        return None
    name, found = candidate.steps[index].spec.name, None
    candidate_tick = _tick(candidate)
    for run in runs:
        if run.id not in held_back or run.pipeline != candidate.pipeline or run.id == candidate.id:
            continue
        step_index = run.active_step()
        if step_index is None or run.steps[step_index].spec.name != name or run.scheduled_for is None:
            continue
        if _tick(run) < candidate_tick and (found is None or _tick(found) < _tick(run)):
            found = run
    return found


def earlier_tick_reason(earlier: Run) -> str:
    """Return why a step waits for that of an earlier tick, ending with the reason of that one."""
    step_index = earlier.active_step()
    waiting = None if step_index is None else earlier.steps[step_index].waiting
    cause = (waiting or "").rpartition(": ")[2]
    return f"waits for the step's earlier tick, run {earlier.id}" + (f": {cause}" if cause else "")


def _tick(run: Run) -> tuple[datetime, str]:
    return run.scheduled_for or run.created_at, run.id


def _in_use_by(dataset: str, run: str) -> str:
    return f"{in_use(dataset)} by run {run}"


def in_use(dataset: str) -> str:
    """Return the prefix of the reason of a step that waits for a dataset."""
    return f"dataset {dataset} is in use"


class WaitQueue:
    """The waiting runs, each with one reason. `wake` is called with each run that may continue."""

    def __init__(self) -> None:
        self.wake: Callable[[str], None] = lambda _: None
        self._rounds: dict[str, tuple[str, str]] = {}  # run → dataset, stamp of its tick
        self._of_round: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._waits_behind: dict[str, str] = {}  # run → the run of an earlier tick
        self._followers: defaultdict[str, set[str]] = defaultdict(set)
        self._queues: defaultdict[str, dict[str, Place]] = defaultdict(dict)  # dataset → run → place
        self._queue_of: dict[str, str] = {}
        self._for_space: set[str] = set()

    def __len__(self) -> int:
        return len(self._rounds) + len(self._waits_behind) + len(self._queue_of) + len(self._for_space)

    def held_back(self) -> set[str]:
        """Return the runs that wait for a round, or behind one that does."""
        return {*self._rounds, *self._waits_behind}

    def stop_waiting(self, run: str) -> None:
        """Forget the run; if it was the first in a queue, wake the next one."""
        if (place := self._rounds.pop(run, None)) is not None:
            _drop(self._of_round, place, run)
        if (other := self._waits_behind.pop(run, None)) is not None:
            _drop(self._followers, other, run)
        if (dataset := self._queue_of.pop(run, None)) is not None:
            first = self._first_in_queue(dataset) == run
            del self._queues[dataset][run]
            if not self._queues[dataset]:
                del self._queues[dataset]
            elif first:
                self.wake(self._first_in_queue(dataset))
        self._for_space.discard(run)

    def wait_for_round(self, run: str, dataset: str, tick: datetime) -> None:
        """Record that a run waits for a round; it blocks no other from then on."""
        is_new = run not in self._rounds and run not in self._waits_behind
        self.stop_waiting(run)
        self._rounds[run] = (dataset, f"{tick:%Y%m%dT%H%M%SZ}")  # as the ids of the tick's rounds begin
        self._of_round[self._rounds[run]].add(run)
        if is_new:
            self._wake_first_in_queues()

    def wait_behind(self, run: str, other: str) -> None:
        """Record that a run waits behind a run of an earlier tick, which waits for a round.

        It blocks no other.
        """
        is_new = run not in self._rounds and run not in self._waits_behind
        self.stop_waiting(run)
        self._waits_behind[run] = other
        self._followers[other].add(run)
        if is_new:
            self._wake_first_in_queues()

    def wait_for_dataset(self, run: str, dataset: str, place: Place) -> bool:
        """Queue a run for a dataset; return True if it is the first, which is woken by changes of any run."""
        if self._queue_of.get(run) != dataset:
            self.stop_waiting(run)
        self._queue_of[run] = dataset
        self._queues[dataset][run] = place
        return self._first_in_queue(dataset) == run

    def wait_for_space(self, run: str) -> None:
        self.stop_waiting(run)
        self._for_space.add(run)

    def _first_in_queue(self, dataset: str) -> str:
        places = self._queues[dataset]
        return min(places, key=places.__getitem__)

    def _wake_first_in_queues(self) -> None:
        for dataset in list(self._queues):
            self.wake(self._first_in_queue(dataset))

    def _wake_all(self, runs: Iterable[str]) -> None:
        for run in list(runs):
            self.wake(run)

    # changes that may let a run continue

    def follow(self, runs: Mirror[Run], rounds: Mirror[Round], voters: Voters) -> None:
        runs.subscribe(self.run_changed)
        rounds.subscribe(self.round_changed)
        voters.peer_records.mirror.subscribe(self.peer_record_changed)
        voters.members.subscribe(lambda _: self._wake_all(self._rounds))

    def run_changed(self, run: str) -> None:
        self._wake_first_in_queues()
        self._wake_all(self._followers.get(run, ()))
        self._wake_all(self._for_space)

    def round_changed(self, name: str) -> None:
        dataset, _, round_id = name.partition("/")
        self._wake_all(self._of_round.get((dataset, round_id.partition("-")[0]), ()))

    def peer_record_changed(self, name: str) -> None:
        """Wake runs that wait for rounds of a dataset whose participants may have changed."""
        if (participation := participation_names(name)) is not None:
            self._wake_all(run for run, (dataset, _) in self._rounds.items() if dataset == participation[0])


def _drop(index: defaultdict[K, set[str]], key: K, run: str) -> None:
    index[key].discard(run)
    if not index[key]:
        del index[key]
