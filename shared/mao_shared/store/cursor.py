"""Cursors of listings: the revision of the first page and the last name that was given out."""

from __future__ import annotations

import re

from mao_shared.errors import InvalidInput

_CURSOR = re.compile(r"([1-9][0-9]{0,17}):(.+)", re.DOTALL)


def write_cursor(revision: int, prefix: str, last_key: str) -> str:
    """Names the place behind `last_key`; the prefix is left out, so a cursor cannot lead out of it."""
    return f"{revision}:{last_key.removeprefix(prefix)}"


def read_cursor(cursor: str, prefix: str) -> tuple[int, str]:
    """The revision and the last key; raises InvalidInput (`cursor-invalid`)."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise cursor_invalid()
    return int(match[1]), prefix + match[2]


def cursor_invalid() -> InvalidInput:
    return InvalidInput(
        "The cursor is not one that a list call gave.",
        code="cursor-invalid",
        next="Leave 'cursor' out to begin with the first page.",
    )
