"""Stored records that this version cannot read, listed until they are readable or deleted.

Readers note such a record here and continue without it. Since some records are rarely read, the list is also
rechecked periodically (`mao_shared.reconcile.recheck_unreadable`).
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
    from mao_shared.conditions import Conditions  # imports FastAPI, which maoctl avoids

log = get_logger(__name__)
CONDITION = "record-unreadable"
KNOWN_FORMAT = 1  # newest format of stored documents; those without `format` have format 1
FORMAT = "format"
Parse = Callable[[Entry], object]


class Unreadable:
    """The unreadable records of one service."""

    def __init__(self, conditions: Conditions | None = None) -> None:
        self.conditions = conditions
        self._known: dict[str, tuple[Store, Parse, RecordUnreadable]] = {}

    def note(self, store: Store, parse: Parse, error: RecordUnreadable) -> None:
        """Add a record. `parse` is called for rechecks; it raises RecordUnreadable while it fails."""
        before = self._known.get(error.key)
        self._known[error.key] = (store, parse, error)
        if before is not None and before[2].why == error.why:
            return
        log.error("record.unreadable", key=error.key, error=error.why)
        if self.conditions is not None:
            detail, next_step = error.detail, error.next or recovery_step(error.key)
            self.conditions.report(CONDITION, error.key, detail=detail, next_step=next_step)

    def clear(self, key: str) -> None:
        """Remove a record that is readable or deleted; does nothing if it was not noted."""
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
            except MaoError:  # unreachable, or access denied
                continue


class Misplaced(ValueError):
    """A record that does not belong under its key. The message gives the reason, without values."""


def why_unreadable(error: Exception, value: bytes) -> str:
    """Return why a record is unreadable, without its values, which may be secret."""
    if isinstance(error, ValidationError):
        why = fault(error)
    else:
        why = str(error) if isinstance(error, Misplaced) else type(error).__name__
    declared = declared_format(value)
    if declared > KNOWN_FORMAT:
        why += f"; it has format {declared}, and this version supports formats up to {KNOWN_FORMAT}"
    return why


def fault(error: ValidationError) -> str:
    """Return the first validation error, without the value."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def declared_format(value: bytes) -> int:
    """Return the format that a stored document declares; 1 without a declaration."""
    declared = raw_field(value, FORMAT)
    return declared if isinstance(declared, int) and not isinstance(declared, bool) else KNOWN_FORMAT


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
    """Return the next step for an unreadable record."""
    kind, name = key.split("/")[-2:] if key.count("/") >= 2 else ("", key)
    verb = _VERBS.get(kind)
    away = verb.format(name) if verb else f"etcdctl del {key}"
    return (
        "If a newer version of MAO wrote it, run that version again; if it is damaged, stop the node and "
        f"restore its last backup: maoctl node restore FILE --replace. To delete the record: {away}"
    )
