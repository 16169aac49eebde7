"""The fields of stored records that this version does not know: taken over, or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .common import Record

R = TypeVar("R", bound=Record)


def fields_of(record: Record) -> dict[str, Any]:
    """The fields that this version knows, to make another record of."""
    return {name: getattr(record, name) for name in type(record).model_fields}


def carry_over(before: Record, after: R) -> R:
    """`after` with the unknown fields of the record that it replaces, at every depth.

    Records in a list belong together when they have the same name, or the same place where they have none.
    """
    changes = {
        name: _carried(getattr(before, name, None), getattr(after, name)) for name in type(after).model_fields
    }
    changed = {name: new for name, new in changes.items() if new is not getattr(after, name)}
    unknown = {**(before.__pydantic_extra__ or {}), **(after.__pydantic_extra__ or {})}
    if not changed and unknown == (after.__pydantic_extra__ or {}):
        return after
    made = after.model_copy(update=changed)
    made.__pydantic_extra__ = unknown
    return made


def _carried(before: Any, after: Any) -> Any:
    if isinstance(before, Record) and isinstance(after, Record):
        return carry_over(before, after)
    if isinstance(before, list) and isinstance(after, list):
        return _carried_list(before, after)
    if isinstance(before, Mapping) and isinstance(after, dict):
        made = {key: _carried(before.get(key), each) for key, each in after.items()}
        return made if any(made[key] is not after[key] for key in made) else after
    return after


def _carried_list(before: Sequence[Any], after: list[Any]) -> list[Any]:
    known = {_place(at, each): each for at, each in enumerate(before)}
    made = [_carried(known.get(_place(at, each)), each) for at, each in enumerate(after)]
    return made if any(one is not other for one, other in zip(made, after, strict=True)) else after


def _place(at: int, item: Any) -> object:
    return getattr(item, "name", None) or at


def without_unknown(record: R) -> R:
    """The record as this version would have written it, for those who refuse what they do not know."""
    changes = {name: _stripped(getattr(record, name)) for name in type(record).model_fields}
    made = record.model_copy(update=changes)
    made.__pydantic_extra__ = {}
    return made


def _stripped(value: Any) -> Any:
    if isinstance(value, Record):
        return without_unknown(value)
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items()}
    return value
