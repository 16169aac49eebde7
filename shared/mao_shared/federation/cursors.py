"""Cursors of listings that tell which store has given them."""

from __future__ import annotations

import re
import zlib

from mao_shared.errors import StoreSwitched

_TAG = re.compile(r"[0-9a-f]{8}@")
_PLAIN = re.compile(r"[0-9]+:")


def _tag(name: str) -> str:
    """Marks the cursors of one home, so that no other takes them for its own."""
    return f"{zlib.crc32(name.encode()):08x}@" if name else ""


def write_cursor(cursor: str | None, name: str) -> str | None:
    return None if cursor is None else _tag(name) + cursor


def read_cursor(cursor: str | None, name: str) -> str | None:
    """The home's own cursor; raises StoreSwitched for one that another has given."""
    tag = _TAG.match(cursor or "")
    if cursor is not None and (tag[0] if tag else "") != _tag(name) and (tag or _PLAIN.match(cursor)):
        raise StoreSwitched
    return cursor[tag.end() :] if cursor and tag else cursor
