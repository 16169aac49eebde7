"""Data of external programs: request and response bodies of `/write`, `/read` and `/inspect`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from .common import Name, Record, Timestamp, name_fault
from .run import Failure

MAX_KEY_PARTS = 8


def key_fault(key: str) -> str | None:
    """Return what is wrong with a key of `POST /write`, or None.

    A key is a name, or names with '/' between them: folders below `external/` of the dataset.
    """
    parts = key.split("/")
    if len(parts) > MAX_KEY_PARTS:
        return f"it has {len(parts)} parts; at most {MAX_KEY_PARTS} are accepted"
    for part in parts:
        if fault := name_fault(part):
            return f"{fault} (in its part {part!r})" if len(parts) > 1 else fault
    if any(_DAY_FILE.fullmatch(part) for part in parts[1:]):  # would collide with a file of the parent key
        return "one of its parts has the name of a daily file"
    return None


_DAY_FILE = re.compile(r"\d{4}-\d{2}-\d{2}(?:\.\d+)?\.jsonl")


def _check_key(text: str) -> str:
    key = text.removeprefix("/")  # the original's store treated keys as paths
    if fault := key_fault(key):
        raise ValueError(f"invalid key: {fault}; a key is a name, or names with '/' between them")
    return key


ExternalKey = Annotated[
    str, Field(max_length=600, examples=["temperature", "sensors/room-1"]), AfterValidator(_check_key)
]


class ExternalWrite(Record):
    """Body of `POST /write`. `key`: declared by a dataset, or below a declared key. `value`: any JSON, as
    RawJson if its original text is known."""

    key: ExternalKey
    value: Any = Field(examples=[{"celsius": 21.5}])


class Receipt(Record):
    """Receipt for a value stored on the node's disk, later a line with this id in `external/<key>/`."""

    id: str
    key: ExternalKey
    dataset: Name
    received_at: Timestamp


class ExternalState(Record):
    """Declared keys and waiting values of a dataset. `since`: when the oldest waiting value was received."""

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
    """A tool's `insights.json`. `value`: omitted if too large; `size`: in bytes."""

    key: str
    dataset: Name
    branch: str
    commit: str | None = None
    size: int = 0
    value: Any = None
    problem: str | None = None


class RemoteCheck(Record):
    """Body of `POST /remotes/check`."""

    master: str = Field(min_length=1, max_length=2000, examples=["git@git.example.org:mao/performance.git"])


class RemoteState(Record):
    """A reachable remote repository. `default_branch`: the branch of its HEAD; None if it is empty."""

    master: str
    default_branch: str | None
