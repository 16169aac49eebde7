"""What waits to be pushed, and why: commits that only this node has, told from git itself.

A commit is in the outbox while the remote was not seen to have it. Nothing else is kept, so that a restart
forgets no commit; only the reason is learned again, by the next try.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

import mao_git
from mao_git import Clone
from mao_shared.errors import MaoError
from mao_shared.models import Timestamp
from mao_shared.reconcile import Backoff

State = Literal["in-sync", "waiting", "refused", "auth", "gone", "diverged"]
_STATES: dict[str, State] = {
    "push-refused": "refused",
    "branch-name-taken": "refused",
    "remote-unsupported": "refused",
    "remote-not-allowed": "refused",
    "remote-auth-failed": "auth",
    "ssh-key-unusable": "auth",
    "host-key-revoked": "auth",
    "remote-certificate-refused": "auth",
    "host-key-unknown": "auth",
    "host-key-changed": "auth",
    "dataset-unreachable": "gone",
    "branch-conflict": "diverged",
    "branch-rewritten": "diverged",
}
_HELPLESS = frozenset({"refused", "auth", "diverged"})  # they need a person: no use in hammering
SLOWER = 6  # times longer between the tries then
MAX_PAUSE = 300.0  # seconds, of those that pass by themselves


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the last push did not get through. `tries`: since the last that did; `since`: the first of them."""

    failure: MaoError
    tries: int
    next_try_at: datetime
    since: datetime

    @property
    def state(self) -> State:
        return _STATES.get(self.failure.code, "waiting")


class Outbox(BaseModel):
    """`waiting`: commits of this node's branch that the remote lacks; `since`: when the oldest was made."""

    state: State = Field(examples=["waiting"])
    waiting: int = 0
    since: Timestamp | None = None
    code: str | None = None
    detail: str | None = None
    next: str | None = None
    tries: int = 0
    next_try_at: Timestamp | None = None


def outbox_of(clone: Clone, branch: str, trouble: Trouble | None) -> Outbox:
    """The outbox of a dataset. Blocking; proportional to what waits."""
    waiting, since = mao_git.waiting(clone, branch)
    if trouble is None:
        return Outbox(state="waiting" if waiting else "in-sync", waiting=waiting, since=since)
    failure = trouble.failure
    return Outbox(
        state=trouble.state,
        waiting=waiting,
        since=since,
        code=failure.code,
        detail=failure.detail,
        next=failure.next,
        tries=trouble.tries,
        next_try_at=trouble.next_try_at,
    )


def pause_before(first: float, tries: int, code: str, chance: float | None = None) -> float:
    """Seconds before the next try of a push that failed with `code`; see `Backoff.pause`."""
    slower = SLOWER if _STATES.get(code, "waiting") in _HELPLESS else 1
    return slower * Backoff(first, MAX_PAUSE).pause(tries, chance)
