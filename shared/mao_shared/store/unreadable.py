"""The stored records that this version cannot read: shown until they can be read or are gone.

Every reader that finds one notes it here and continues without it. Records that are seldom read would stay on
the list for long, so the list is checked again by itself (`mao_shared.reconcile.recheck_unreadable`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mao_shared.errors import MaoError, RecordUnreadable
from mao_shared.logs import get_logger

from .protocol import Entry, Store

if TYPE_CHECKING:
    from mao_shared.conditions import Conditions  # imports FastAPI, which the command line does without

log = get_logger(__name__)
CONDITION = "record-unreadable"
KNOWN_FORMAT = 1  # of stored documents; one without the field `format` is of format 1
FORMAT = "format"
Parse = Callable[[Entry], object]


class Unreadable:
    """The unreadable records of one service."""

    def __init__(self, conditions: Conditions | None = None) -> None:
        self.conditions = conditions
        self._known: dict[str, tuple[Store, Parse, RecordUnreadable]] = {}

    def note(self, store: Store, parse: Parse, error: RecordUnreadable) -> None:
        """`parse` is asked again later; it raises RecordUnreadable as long as the record stays as it is."""
        before = self._known.get(error.key)
        self._known[error.key] = (store, parse, error)
        if before is not None and before[2].why == error.why:
            return
        log.error("record.unreadable", key=error.key, error=error.why)
        if self.conditions is not None:
            detail, next_step = error.detail, error.next or recovery_step(error.key)
            self.conditions.report(CONDITION, error.key, detail=detail, next_step=next_step)

    def clear(self, key: str) -> None:
        """Forget a record that is readable or gone; does nothing if it was not noted."""
        if self._known.pop(key, None) is None:
            return
        log.info("record.readable_or_gone", key=key)
        if self.conditions is not None:
            self.conditions.clear(CONDITION, key)

    async def check(self) -> None:
        """Recheck all noted records."""
        for key, (store, parse, _) in list(self._known.items()):
            try:
                entry = await store.get(key)
                if entry is None:
                    self.clear(key)
                else:
                    parse(entry)
                    self.clear(key)
            except RecordUnreadable as error:
                self.note(store, parse, error)
            except MaoError:  # the store is away, or is not to be asked for this
                continue


class Misplaced(ValueError):
    """A record that does not belong under its key; the message says why, without its values."""


def why_unreadable(error: Exception, value: bytes) -> str:
    """Return what is wrong with a record, without its values, which may be secret."""
    if isinstance(error, ValidationError):
        why = fault(error)
    else:
        why = str(error) if isinstance(error, Misplaced) else type(error).__name__
    declared = declared_format(value)
    if declared > KNOWN_FORMAT:
        why += f"; it is of format {declared}, and this version knows formats up to {KNOWN_FORMAT}"
    return why


def fault(error: ValidationError) -> str:
    """Return the first validation error, without the value."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def declared_format(value: bytes) -> int:
    """Return the format that a stored document declares; 1 without a declaration."""
    found = raw_field(value, FORMAT)
    return found if isinstance(found, int) and not isinstance(found, bool) else KNOWN_FORMAT


def raw_field(value: bytes, name: str) -> Any:
    """Return one field of an unreadable document, or None."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return document.get(name) if isinstance(document, dict) else None


_VERBS = {
    "tools": "maoctl tool remove {}",
    "datasets": "maoctl dataset remove {}",
    "pipelines": "maoctl pipeline remove {}",
    "enrolments": "maoctl pipeline withdraw {}",
    "schedules": "maoctl job remove {}",
    "webhooks": "maoctl webhook remove {}",
    "trusted": "maoctl node untrust {}",
}


def recovery_step(key: str) -> str:
    """Return what a person can do about an unreadable record."""
    kind, name = key.split("/")[-2:] if key.count("/") >= 2 else ("", key)
    verb = _VERBS.get(kind)
    away = verb.format(name) if verb else f"etcdctl del {key}"
    return (
        "If a newer version of MAO wrote it, run that version again; if it is damaged, stop the node and "
        f"restore its last backup: maoctl node restore FILE --replace. To delete the record: {away}"
    )
