"""Whether a thing holds that a node needs: one type for readiness, doctor, dashboard, metrics and alarms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializeAsAny

from .common import Record, Timestamp

ConditionState = Literal["ok", "degraded", "failed"]


class Condition(Record):
    """One thing that has to hold, or what it is about when it does not.

    `degraded`: a person should look, the service goes on with everything else. `failed`: the service cannot
    do its work, so it is not ready. `next` is the command or step that mends it.
    """

    name: str = Field(max_length=63, examples=["disk", "record-unreadable"])
    subject: str = Field(default="", max_length=500, description="Dataset, run or key; empty: the node")
    state: ConditionState
    detail: str = ""
    next: str = ""
    since: Timestamp


class NodeCondition(Condition):
    """A condition as the whole node tells it: `services` are those that report it."""

    services: list[str] = Field(default_factory=list)


class ConditionList(Record):
    """What `GET /conditions` answers: a service its own, the gateway those of all."""

    items: list[SerializeAsAny[Condition]]


class OpenCondition(Record):
    """Stored under `keys.open_condition(node, …)` while an alarm's condition holds: who reports it still."""

    alarm: str
    name: str
    subject: str = ""
    state: ConditionState = "degraded"
    services: list[str] = Field(default_factory=list)
