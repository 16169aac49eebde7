"""Cursors of listings: the revision of the first page and the last name that was given out."""

from __future__ import annotations

import re

from mao_shared.errors import InvalidInput

ODD = "surrogateescape"  # how bytes that are no text go through a str
_HEX = "\0"  # begins a name in hexadecimals
_CURSOR = re.compile(r"([1-9][0-9]{0,17}):(.+)", re.DOTALL)


def write_cursor(revision: int, prefix: str, last_key: str) -> str:
    """Names the place behind `last_key`; the prefix is left out, so a cursor cannot lead out of it."""
    name = last_key.removeprefix(prefix)
    return f"{revision}:{_HEX + name.encode(errors=ODD).hex() if _is_odd(name) else name}"


def read_cursor(cursor: str, prefix: str) -> tuple[int, str]:
    """The revision and the last key; raises InvalidInput (`cursor-invalid`)."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise cursor_invalid()
    name = match[2]
    if name.startswith(_HEX):
        try:
            name = bytes.fromhex(name.removeprefix(_HEX)).decode(errors=ODD)
        except ValueError:
            raise cursor_invalid() from None
    return int(match[1]), prefix + name


def _is_odd(name: str) -> bool:
    """Whether a name was written by nobody of ours: it is no text, or would be taken for our hexadecimals."""
    return name.startswith(_HEX) or any("\ud800" <= letter <= "\udfff" for letter in name)


def cursor_invalid() -> InvalidInput:
    return InvalidInput(
        "The cursor is not one that a list call gave.",
        code="cursor-invalid",
        next="Leave 'cursor' out to begin with the first page.",
    )
