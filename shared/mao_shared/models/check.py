"""Data checks: what a step's output must be like before it is published, the findings, quarantined output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from .alarm import ControlMetric
from .common import STORED, Name, NodeName, OrNewer, Record, Timestamp

MAX_CHECKS = 50
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = 60
QUARANTINE_PREFIX = "quarantine/"
"""Of the branches with quarantined snapshots. A name has no '/', so no step reads and no vote counts them."""

OnFailure = Literal["warn", "quarantine", "block"]
ColumnType = Literal["text", "integer", "number", "boolean", "time"]
CheckKind = Literal["present", "columns", "rows", "rows-change", "metric", "schema"]
_SEVERITY = {"warn": 0, "quarantine": 1, "block": 2}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA = ("const", "enum", "default", "examples")  # keywords whose values are no schemas


def quarantine_branch(node: str) -> str:
    """Return the branch of a dataset to which a node commits quarantined snapshots."""
    return QUARANTINE_PREFIX + node


def _whole_rows(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Amount = Annotated[
    str,
    BeforeValidator(_whole_rows),
    Field(pattern=r"^(\d{1,15}|\d{1,6}(\.\d{1,6})?%)$", examples=["10%", "500"]),
]
"""A number of rows, or a share of the rows of the last snapshot."""


def _check_schema(schema: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if info.context == STORED:
        return schema
    if len(json.dumps(schema).encode()) > MAX_SCHEMA_BYTES:
        raise ValueError(f"the schema has more than {MAX_SCHEMA_BYTES} bytes")
    for keyword, value in _schema_keywords(schema):
        if keyword in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise ValueError(
                f"{keyword} {value[:200]!r} is outside of the schema: put what it refers to under $defs"
            )
    return schema


def _schema_keywords(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all keywords with their values, at every depth. Raises ValueError for more than the limit."""
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, list):
                following += item
                continue
            for keyword, value in item.items():
                yield keyword, value
                if keyword not in _DATA:
                    following.append(value)
        level = [item for item in following if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")


JsonSchema = Annotated[dict[str, Any], AfterValidator(_check_schema)]


class Check(Record):
    """A condition on a step's output, checked before it is published.

    `file`: a path or a pattern with `*`, `?`, `**`; of rows, all tables without it. Set one kind:
    only `file` (it is present); `columns` with their types, and which of them are `not_empty`; `at_least` or
    `at_most` rows; `max_increase` or `max_decrease` of the rows against the last snapshot; `metric`: a
    control metric of the step that must be inside its band; `json_schema` of a JSON or JSON Lines file.
    """

    name: Name = Field(examples=["enough-rows"])
    on_failure: Annotated[OnFailure, OrNewer] = "warn"
    file: str | None = Field(default=None, min_length=1, max_length=1000, examples=["results.csv"])
    columns: dict[str, ColumnType] | None = Field(default=None, min_length=1, max_length=1000)
    not_empty: list[str] = Field(default_factory=list, max_length=1000, exclude_if=lambda names: not names)
    at_least: int | None = Field(default=None, ge=0, le=10**15)
    at_most: int | None = Field(default=None, ge=0, le=10**15)
    max_increase: Amount | None = None
    max_decrease: Amount | None = None
    metric: Name | None = None
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _one_kind(self, info: ValidationInfo) -> Check:
        if info.context == STORED:
            return self
        kinds = self._kinds()
        if len(kinds) > 1:
            raise ValueError(f"a check is of one kind, and this has {', '.join(kinds)}; make several checks")
        if self.kind == "metric" and self.file is not None:
            raise ValueError("a check of a metric has no 'file'")
        if self.kind in ("present", "columns", "schema") and self.file is None:
            raise ValueError("give 'file': a path in the output, or a pattern")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("'at_least' is greater than 'at_most'")
        if unknown := sorted(set(self.not_empty) - set(self.columns or {})):
            raise ValueError(f"'not_empty' names {unknown[0]!r}, which is not in 'columns'")
        return self

    def _kinds(self) -> list[CheckKind]:
        given: dict[CheckKind, bool] = {
            "columns": self.columns is not None,
            "rows": (self.at_least, self.at_most) != (None, None),
            "rows-change": (self.max_increase, self.max_decrease) != (None, None),
            "metric": self.metric is not None,
            "schema": self.json_schema is not None,
        }
        return [kind for kind, is_given in given.items() if is_given]

    @property
    def kind(self) -> CheckKind:
        return next(iter(self._kinds()), "present")

    @property
    def unknown_part(self) -> str | None:
        """The name of a field that a newer version defines, so that this one cannot check it; or None."""
        return next(iter(self.__pydantic_extra__ or {}), None)


def validate_checks(checks: Sequence[Check], metrics: Sequence[ControlMetric]) -> None:
    """Raise ValueError if two checks of a step have one name, or one is of a metric that it does not have."""
    names = [check.name for check in checks]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two checks have the name {duplicate!r}")
    known = {metric.name for metric in metrics}
    for check in checks:
        if check.metric is not None and check.metric not in known:
            raise ValueError(f"check {check.name!r}: the step has no metric {check.metric!r}")


Checks = Annotated[list[Check], Field(max_length=MAX_CHECKS, exclude_if=lambda checks: not checks)]
"""The checks of a step. Omitted if there are none: the record is then what earlier versions wrote."""


class CheckResult(Record):
    """What a check found. `value`: the number of rows or the metric, if it is about one."""

    name: str
    kind: str = Field(examples=["rows"])
    on_failure: str = Field(examples=["block"])
    passed: bool
    detail: str = Field(default="", max_length=2000)
    value: float | None = None


def strongest_reaction(results: Sequence[CheckResult]) -> OnFailure | None:
    """Return what the failed checks lead to: the strongest of their reactions; None if all passed.

    A reaction that only a newer version knows counts as `block`.
    """
    failed = [_SEVERITY.get(result.on_failure, _SEVERITY["block"]) for result in results if not result.passed]
    if not failed:
        return None
    reactions: tuple[OnFailure, ...] = ("warn", "quarantine", "block")
    return reactions[max(failed)]


def failed_checks_text(results: Sequence[CheckResult], max_length: int = 500) -> str:
    """Return the failed checks with what they found, the strongest reactions first."""
    failed = [result for result in results if not result.passed]
    failed.sort(key=lambda result: -_SEVERITY.get(result.on_failure, _SEVERITY["block"]))
    text = "; ".join(f"{result.name}: {result.detail.rstrip('.')}" for result in failed)
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


QuarantineState = Literal["waiting", "accepted", "discarded"]


class Quarantine(Record):
    """Where a step's quarantined output is. `note`: of the person who accepted or discarded it."""

    commit: str
    branch: str = Field(examples=["quarantine/node-1"])
    state: Annotated[QuarantineState, OrNewer] = "waiting"
    decided_at: Timestamp | None = None
    by: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=2000)


class QuarantinedSnapshot(Quarantine):
    """A quarantined snapshot. `base`: the commit that it builds on; `accepted_as`: its commit on the node's
    branch; `pushed`: the remote has it, and the decision.

    `files`, `bytes`: how much the step wrote, as far as its record says.
    """

    dataset: Name
    node: NodeName
    run: str
    step: str
    pipeline: str = ""
    scheduled_for: Timestamp | None = None
    quarantined_at: Timestamp
    base: str | None = None
    files: int | None = None
    bytes: int | None = None
    checks: list[CheckResult] = Field(default_factory=list)
    accepted_as: str | None = None
    pushed: bool = False


class QuarantineDecision(Record):
    """Body of `POST /datasets/{name}/quarantine/{snapshot}/accept` and `…/discard`."""

    by: str = Field(default="", max_length=200, examples=["Ada"])
    note: str = Field(default="", max_length=2000, examples=["The source was down for a day."])


class OpenCheck(Record):
    """A check that fails. `count`: runs in a row; `alarm`: the open alarm about it."""

    alarm: str
    count: int = Field(default=1, ge=1)


class CheckHealth(Record):
    """Which checks of a step fail, stored under `keys.check_health(node, pipeline, step)`.

    `judged_at` and `judged`: end and id of the last run that changed this record.
    """

    pipeline: Name
    step: Name
    failing: dict[str, OpenCheck] = Field(default_factory=dict)
    judged_at: Timestamp | None = None
    judged: str | None = None


def results_from_record(record: Mapping[str, Any] | None) -> list[CheckResult]:
    """Return the results in a commit's record; none if it has none, or others wrote it in another form."""
    found = (record or {}).get("checks")
    try:
        return [CheckResult.model_validate(item, context=STORED) for item in found or []]
    except (TypeError, ValueError):
        return []
