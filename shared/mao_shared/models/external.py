"""What programs outside send and ask: the bodies and answers of `/write`, `/read` and `/inspect`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .common import Name, Record, Timestamp
from .run import Failure


class ExternalWrite(Record):
    """Body of `POST /write`. `value`: any JSON; RawJson where its spelling is known."""

    key: Name
    value: Any = Field(examples=[{"celsius": 21.5}])


class Receipt(Record):
    """The value is on the node's disk; it becomes a line with this id in `external/<key>/` of the dataset."""

    id: str
    key: Name
    dataset: Name
    received_at: Timestamp


class ExternalState(Record):
    """What is declared and waits for a dataset. `since`: when the oldest value that waits was received."""

    dataset: Name
    keys: list[Name]
    waiting: int
    since: Timestamp | None = None
    failure: Failure | None = None


class InsightQuery(Record):
    """Body of `POST /read` and `POST /inspect`. `key`: a tool (or dataset), or tool/branch."""

    key: str | None = Field(default=None, max_length=200, examples=["system-performance/node-1"])
    dataset: Name | None = None


class Insight(Record):
    """What a tool left as `insights.json`. `value` is left out where it is too large; `size` in bytes."""

    key: str
    dataset: Name
    branch: str
    commit: str | None = None
    size: int = 0
    value: Any = None
    problem: str | None = None


class RemoteCheck(Record):
    """Body of `POST /remotes/check`."""

    master: str = Field(min_length=1, max_length=2000, examples=["git@git.example.org:mao/data.git"])


class RemoteState(Record):
    """A repository that answers. `default_branch`: what its HEAD names; None: it is empty."""

    master: str
    default_branch: str | None
