"""What does not hold on this service right now: reported where it is noticed, read by all who tell people.

One list feeds `/readyz`, `doctor`, the dashboard, metrics and alarms, so that they cannot contradict each
other. It lives in memory: whoever reports a condition looks again after a restart and reports it anew.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from .clock import Clock, SystemClock
from .models.condition import Condition, ConditionState


class Conditions:
    """The conditions of one service by name and subject. Not thread-safe: for the event loop's thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._current: dict[tuple[str, str], Condition] = {}
        self._subscribers: list[Callable[[Condition], None]] = []

    def report(
        self, name: str, subject: str = "", *, detail: str, next_step: str, state: ConditionState = "degraded"
    ) -> None:
        """Notes what does not hold. `since` stays as it was when the same was reported before."""
        before = self._current.get((name, subject))
        since = before.since if before is not None else self._clock.now()
        condition = Condition(
            name=name, subject=subject, state=state, detail=detail, next=next_step, since=since
        )
        if condition != before:
            self._current[name, subject] = condition
            self._tell(condition)

    def clear(self, name: str, subject: str = "") -> None:
        """Notes that it holds again; nothing happens when it was not reported."""
        before = self._current.pop((name, subject), None)
        if before is not None:
            changed = {"state": "ok", "detail": "", "next": "", "since": self._clock.now()}
            self._tell(before.model_copy(update=changed))

    def current(self) -> list[Condition]:
        """What does not hold, the failed ones first, then the oldest first."""
        return sorted(self._current.values(), key=lambda each: (each.state != "failed", each.since))

    def subscribe(self, callback: Callable[[Condition], None]) -> None:
        """`callback` is called with every condition that is reported, changes or is cleared (`ok`)."""
        self._subscribers.append(callback)

    def _tell(self, condition: Condition) -> None:
        for callback in self._subscribers:
            callback(condition)


def conditions_of(app: FastAPI) -> Conditions:
    """The conditions of an app that `make_service` made."""
    conditions = app.state.conditions
    if not isinstance(conditions, Conditions):
        raise TypeError("the app was not made by make_service")
    return conditions
