"""Base classes of the models; types for names, times, sizes and commands; unknown fields; lists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticKnownError

from mao_shared.errors import RecordUnreadable

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")
GROUND_TRUTH = "ground-truth"
_RESERVED = frozenset({GROUND_TRUTH, "HEAD", "quarantine"})  # the last is a folder of branches
NAME_RULE = (
    "1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit, "
    "without '..' and not ending in '.lock'"
)
MAX_NAME = 63


def name_fault(text: str) -> str | None:
    """Return what is wrong with `text` as a name, or None."""
    if not text:
        return "it is empty"
    if len(text) > MAX_NAME:
        return f"it has {len(text)} characters"
    if ".." in text:
        return "'..' is in it"
    if foreign := _FOREIGN.search(text):
        return f"{foreign[0]!a} is in it"
    if text.endswith(".lock"):
        return "it ends in '.lock'"
    return None if _NAME.fullmatch(text) else "it begins or ends with '.', '_' or '-'"


def is_name(text: str) -> bool:
    """Return True if `text` is valid as a branch name, a path component and a container label."""
    return name_fault(text) is None


def _check_name(text: str) -> str:
    if fault := name_fault(text):
        raise ValueError(f"invalid name: {fault}; a name is {NAME_RULE}")
    return text


def _check_node_name(text: str) -> str:
    if text in _RESERVED:
        raise ValueError(f"{text!r} is reserved: a node's name becomes a branch")
    return text


Name = Annotated[str, AfterValidator(_check_name), Field(examples=["system-performance"])]
NodeName = Annotated[Name, AfterValidator(_check_node_name), Field(examples=["node-1"])]
STORED = {"stored": True}
"""Validation context for stored records: they may break newer rules and have fields of newer versions."""


def _check_unique(names: list[str], info: ValidationInfo) -> list[str]:
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names) and info.context != STORED:
        duplicate = next(name for name in unique if names.count(name) > 1)
        raise ValueError(f"the node {duplicate!r} is listed twice")
    return unique


NodeNames = Annotated[list[NodeName], AfterValidator(_check_unique), Field(max_length=1000)]
FIRST_YEAR, LAST_YEAR = 1900, 3000


def _to_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("missing time zone; write for example 2026-01-31T12:00:00Z")
    if not FIRST_YEAR < moment.year < LAST_YEAR:  # leaves room for adding and subtracting durations
        raise ValueError(f"the time is outside the years {FIRST_YEAR} to {LAST_YEAR}")
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Return the time as ISO 8601 in UTC with a trailing Z, fractions only if there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    AfterValidator(_to_utc),
    PlainSerializer(format_time, return_type=str, when_used="json"),
]
_MAX_BYTES = 2**60
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([kKmMgGtT]?)[iI]?[bB]?")
_SIZE_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*(s|m|h|d)?")
_DURATION_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _parse_size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("invalid size; write bytes or for example '512m' or '2g'")
    return int(float(match[1]) * 1024 ** _SIZE_POWER[match[2].lower()])


def _parse_duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if not match:
        raise ValueError("invalid duration; write seconds or for example '90s', '30m', '12h', '7d'")
    return float(match[1]) * _DURATION_SECONDS[match[2]]


def _check_no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be passed to a program")
    return text


def _number_or(unit: re.Pattern[str], number: dict[str, Any], example: str) -> WithJsonSchema:
    """Return the JSON Schema of a quantity: a number in base units, or text with a unit."""
    text = {"type": "string", "pattern": f"^{unit.pattern}$"}
    return WithJsonSchema({"anyOf": [number, text], "examples": [example]})


Bytes = Annotated[
    int,
    BeforeValidator(_parse_size),
    Field(ge=0, le=_MAX_BYTES),
    _number_or(_SIZE, {"type": "integer", "minimum": 0, "maximum": _MAX_BYTES}, "512m"),
]
Seconds = Annotated[
    float,
    BeforeValidator(_parse_duration),
    Field(ge=0, allow_inf_nan=False),
    _number_or(_DURATION, {"type": "number", "minimum": 0}, "30m"),
]
Argument = Annotated[str, Field(max_length=100_000), AfterValidator(_check_no_nul)]
Command = Annotated[
    list[Argument],
    BeforeValidator(lambda value: shlex.split(value) if isinstance(value, str) else value),
    Field(min_length=1, max_length=1000, examples=[["python", "collect.py"]]),
]


def _empty_is_none(value: Any) -> Any:
    """Convert the `[]` or `{}` that the seed's clients send for no command to None."""
    return None if value in ("", [], {}) or (isinstance(value, str) and not value.strip()) else value


OptionalCommand = Annotated[Command | None, BeforeValidator(_empty_is_none)]
"""A command; None falls back to the tool's command, then to the image's."""
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_ENV = 1000


def _check_env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name) or name.startswith("MAO_"):
        raise ValueError(f"invalid name {name[:80]!r}: use letters, digits and '_'; MAO_… is reserved")
    return name


EnvName = Annotated[str, Field(max_length=200), AfterValidator(_check_env_name)]


def _check_env(env: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    if len(env) > MAX_ENV and info.context != STORED:
        raise ValueError(f"too many variables: {len(env)}; at most {MAX_ENV} are accepted")
    for name in env:
        _check_env_name(name)
    return env


Env = Annotated[
    dict[str, Argument],
    BeforeValidator(lambda value: {} if value in (None, "", []) else value),
    AfterValidator(_check_env),
    Field(json_schema_extra={"maxProperties": MAX_ENV}),
]


def _accept_newer(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValueError:
        if info.context == STORED and isinstance(value, str):
            return value
        raise


OrNewer = WrapValidator(_accept_newer)
"""Marks an enumerated field of a response: clients accept values that only a newer version defines."""


class _Null(Enum):
    """The null of an unknown field. `dump` omits None, but unknown fields must be written back unchanged."""

    NULL = None


def _check_unknown(value: Any, info: ValidationInfo) -> Any:
    """Keep a field that this version does not know when it comes from a store; reject it otherwise."""
    if info.context != STORED:
        raise PydanticKnownError("extra_forbidden")
    return _Null.NULL if value is None else value


class Record(BaseModel):
    """Base of all models that are stored or exchanged over the API.

    Unknown fields are rejected in requests. In documents read from a store (context `STORED`) they are kept,
    at every depth, and written back, because a newer version may have written them
    (docs/decisions/0023-stored-documents.md).
    """

    model_config = ConfigDict(
        extra="allow", validate_assignment=False, json_schema_extra={"additionalProperties": False}
    )
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_check_unknown)]]
    key_field: ClassVar[str | None] = None  # the field that must equal the last part of the record's key


class Named(Record):
    """Base of the registry's records, whose name is the last part of their key."""

    key_field = "name"
    name: Name


R = TypeVar("R", bound=Record)


def stored_fields(record: Record) -> dict[str, Any]:
    """Return the fields that this version knows, by name."""
    return {name: getattr(record, name) for name in type(record).model_fields}


def carry_unknown_fields(before: Record, after: R) -> R:
    """Return `after` with the unknown fields of the record that it replaces, at every depth.

    Items of lists are matched by name, or by position if they have no name.
    """
    changes = {
        name: _carried(getattr(before, name, None), getattr(after, name)) for name in type(after).model_fields
    }
    changed = {name: new for name, new in changes.items() if new is not getattr(after, name)}
    unknown = {**(before.__pydantic_extra__ or {}), **(after.__pydantic_extra__ or {})}
    if not changed and unknown == (after.__pydantic_extra__ or {}):
        return after
    merged = after.model_copy(update=changed)
    merged.__pydantic_extra__ = unknown
    return merged


def _carried(before: Any, after: Any) -> Any:
    if isinstance(before, Record) and isinstance(after, Record):
        return carry_unknown_fields(before, after)
    if isinstance(before, list) and isinstance(after, list):
        previous = {_item_key(index, item): item for index, item in enumerate(before)}
        items = [_carried(previous.get(_item_key(index, item)), item) for index, item in enumerate(after)]
        return items if any(new is not old for new, old in zip(items, after, strict=True)) else after
    if isinstance(before, Mapping) and isinstance(after, dict):
        merged = {key: _carried(before.get(key), value) for key, value in after.items()}
        return merged if any(merged[key] is not after[key] for key in merged) else after
    return after


def _item_key(index: int, item: Any) -> object:
    return getattr(item, "name", None) or index


def drop_unknown_fields(record: R) -> R:
    """Return the record without unknown fields, for readers that reject them."""
    changes = {name: _stripped(getattr(record, name)) for name in type(record).model_fields}
    stripped = record.model_copy(update=changes)
    stripped.__pydantic_extra__ = {}
    return stripped


def _stripped(value: Any) -> Any:
    if isinstance(value, Record):
        return drop_unknown_fields(value)
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in value.items()}
    return value


Item = TypeVar("Item")


class UnreadableItem(BaseModel):
    """An item of a list that cannot be read, with the reason and how to fix it."""

    name: str
    key: str
    unreadable: str
    next: str


class Listing(BaseModel, Generic[Item]):
    """A page of a list, in key order. `cursor`: for the next page, null on the last one.

    `unreadable`: items that cannot be read; omitted if there are none.
    """

    items: list[Item]
    cursor: str | None = None
    unreadable: list[UnreadableItem] = Field(default_factory=list, exclude_if=lambda items: not items)


def unreadable_items(found: list[RecordUnreadable]) -> list[UnreadableItem]:
    """Return unreadable records as the API shows them."""
    return [
        UnreadableItem(
            name=error.key.rpartition("/")[2], key=error.key, unreadable=error.why, next=error.next or ""
        )
        for error in found
    ]


class Removed(BaseModel):
    """Response to a DELETE on the original's routes, whose clients print it."""

    removed: str
    detail: str
