"""Conditions: the current problems of a service, reported where they are detected.

One list feeds `/readyz`, `/conditions`, `doctor`, the dashboard, metrics and alarms, so that they never
contradict each other. It is kept in memory: after a restart, each reporter checks and reports again.
docs/operations.md describes each name, what continues meanwhile and how to fix it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import FastAPI

from .clock import Clock, SystemClock
from .logs import get_logger
from .models.node import Condition, ConditionState

log = get_logger(__name__)
NAMES: dict[str, str] = {
    "store": "the node's etcd accepts reads and writes",
    "store-reset": "the node's etcd still holds what this node has written to it",
    "quorum": "the federation's etcd answers",
    "disk": "there is room where the node writes (subject: a folder on a file system of its own)",
    "engine": "the container engine answers and starts containers (subject: what of it)",
    "remote": "a dataset's remote accepts pushes (subject: dataset)",
    "branch-went-back": "a branch at a dataset's remote is not rewound (subject: dataset/branch)",
    "ssh-key": "the keys and known_hosts of MAO_SSH_DIR can be used (subject: file)",
    "unpushed": "no commit waits for long to be pushed (subject: dataset)",
    "clone": "a dataset's clone can be read and written (subject: dataset)",
    "inbox": "all external values of a dataset can be read (subject: dataset)",
    "record-unreadable": "a record in etcd can be read (subject: its key)",
    "item-failing": "an item of a loop can be worked on (subject: loop/key)",
    "step-stuck": "a step moves on (subject: run/step)",
    "not-agreed": "a step asks for nothing but what the operator agreed to (subject: run/step)",
    "log": "a step's log is stored (subject: run/step)",
    "tool-network": "tools have a network of their own",
    "clock": "the node's clock runs evenly",
    "etcd-version": "etcd keeps the federation's rights",
    "open-to-local-users": "only the node's user steers it",
    "backup": "the last backup is whole and not too old (subject: its folder)",
    "restored": "after a restore, the runs since the backup are looked up (subject: dataset)",
    "node-silent": "the federation's other nodes were seen lately (subject: the node)",
    "certificate": "this node's certificates are renewed in time (subject: the file)",
    "channel": "messages about alarms reach a channel (subject: its name)",
    "service": "a service answers (subject: its name)",
}
"""The names of all conditions, and what each one checks; docs/operations.md has a row for each."""
MAX_SHOWN = 200  # conditions per name with details; further ones are counted
MORE = "(more)"  # subject of the condition that counts the others


class Conditions:
    """The conditions of one service, by name and subject. Not thread-safe: use it from the event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._current: dict[tuple[str, str], Condition] = {}
        self._beyond: dict[str, dict[str, ConditionState]] = {}
        self._subscribers: list[Callable[[Condition], None]] = []

    def report(
        self, name: str, subject: str = "", *, detail: str, next_step: str, state: ConditionState = "degraded"
    ) -> None:
        """Report a condition; `since` stays the time of the first report."""
        subject = subject[:500]
        if (name, subject) not in self._current and self._count(name) >= MAX_SHOWN:
            self._beyond.setdefault(name, {})[subject] = state
            self._sum_up(name)
        else:
            self._set(name, subject, detail, next_step, state)

    def clear(self, name: str, subject: str = "") -> None:
        """Clear a condition; does nothing if it was not reported."""
        subject = subject[:500]
        if self._beyond.get(name, {}).pop(subject, None) is not None:
            self._sum_up(name)
        else:
            self._drop(name, subject)

    def clear_all_but(self, name: str, subjects: Iterable[str]) -> None:
        """Clear the condition for all other subjects, for reporters that check all subjects at once."""
        remaining = set(subjects)
        reported = [subject for other, subject in self._current if other == name and subject != MORE]
        for subject in [*reported, *self._beyond.get(name, {})]:
            if subject not in remaining:
                self.clear(name, subject)

    def current(self) -> list[Condition]:
        """Return the open conditions, failed ones first, then the oldest first."""
        return sorted(
            self._current.values(), key=lambda condition: (condition.state != "failed", condition.since)
        )

    def subscribe(self, callback: Callable[[Condition], None]) -> None:
        """Call `callback` with every condition that is reported, changed or cleared (state `ok`)."""
        self._subscribers.append(callback)

    def _count(self, name: str) -> int:
        return sum(other == name and subject != MORE for other, subject in self._current)

    def _sum_up(self, name: str) -> None:
        beyond = self._beyond.get(name, {})
        if not beyond:
            self._beyond.pop(name, None)
            self._drop(name, MORE)
            return
        state: ConditionState = "failed" if "failed" in beyond.values() else "degraded"
        detail = f"and {len(beyond)} more with this name; the oldest are shown"
        self._set(name, MORE, detail, "Fix the listed ones; then the others are shown.", state)

    def _set(self, name: str, subject: str, detail: str, next_step: str, state: ConditionState) -> None:
        before = self._current.get((name, subject))
        since = before.since if before is not None else self._clock.now()
        condition = Condition(
            name=name, subject=subject, state=state, detail=detail, next=next_step, since=since
        )
        if condition != before:
            self._current[name, subject] = condition
            self._notify(condition)

    def _drop(self, name: str, subject: str) -> None:
        before = self._current.pop((name, subject), None)
        if before is not None:
            changed = {"state": "ok", "detail": "", "next": "", "since": self._clock.now()}
            self._notify(before.model_copy(update=changed))

    def _notify(self, condition: Condition) -> None:
        for callback in self._subscribers:
            try:
                callback(condition)
            except Exception:  # a subscriber must not break the reporter
                log.exception("conditions.subscriber_failed", condition=condition.name)


def conditions_of(app: FastAPI) -> Conditions:
    """Return the conditions of an app created by `make_service`; raises TypeError for other apps."""
    conditions = app.state.conditions
    if not isinstance(conditions, Conditions):
        raise TypeError("the app was not created by make_service")
    return conditions
