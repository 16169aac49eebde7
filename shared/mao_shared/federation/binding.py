"""Cursors of listings that tell which store has given them, so that no other takes them for its own."""

from __future__ import annotations

import re
import zlib

from mao_shared.errors import StoreSwitched
from mao_shared.store.cursor import cursor_invalid

_TAGGED = re.compile(r"([0-9a-f]{8})@(.+)", re.DOTALL)


def write_cursor(cursor: str | None, name: str) -> str | None:
    """The cursor of the store called `name`, marked as its."""
    return None if cursor is None else f"{_tag(name)}@{cursor}"


def read_cursor(cursor: str | None, name: str) -> str | None:
    """The store's own cursor; raises StoreSwitched for another's, InvalidInput (`cursor-invalid`)."""
    if cursor is None:
        return None
    match = _TAGGED.fullmatch(cursor)
    if match is None:
        raise cursor_invalid()
    if match[1] != _tag(name):
        raise StoreSwitched
    return match[2]


def _tag(name: str) -> str:
    return f"{zlib.crc32(name.encode()):08x}"
