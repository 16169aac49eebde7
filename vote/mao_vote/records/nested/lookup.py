"""Finds a value in nested data by its path as a user types it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from mao_shared.json_text import parse_json
from mao_vote.records.reading.load import cell_text, escape_step

from .paths import unescape_step

_MEMBER = re.compile(r'("(?:[^"\\]|\\.)*"|[^=,]+)=("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')


def find_value(document: Any, path: str) -> tuple[str, Any] | None:
    """Return the JSON pointer and value at a path, None if there is none.

    An entry of a list is its index, or its identity as in `[name="x"]`, where JSON's quotes may be left out.
    """
    if path and not path.startswith("/"):
        return None
    pointer, value = "", document
    for step in path.split("/")[1:]:
        if isinstance(value, dict):
            names = (unescape_step(step), unescape_step(step.replace("~2", "[", 1)))
            name = next((name for name in names if name in value), None)
            if name is None:
                return None
            pointer, value = f"{pointer}/{escape_step(name)}", value[name]
        elif isinstance(value, list):
            place = _find_entry(value, unescape_step(step))
            if place is None:
                return None
            pointer, value = f"{pointer}/{place}", value[place]
        else:
            return None
    return pointer, value


def _find_entry(items: Sequence[Any], step: str) -> int | None:
    if re.fullmatch("[0-9]{1,18}", step):
        return int(step) if int(step) < len(items) else None
    if not (step.startswith("[") and step.endswith("]")):
        return None
    members = [(_unquoted(name), text) for name, text in _MEMBER.findall(step[1:-1])]
    return next((place for place, item in enumerate(items) if members and _has(item, members)), None)


def _has(item: Any, members: Sequence[tuple[str, str]]) -> bool:
    """True if these members of an entry have these texts, with or without JSON's quotes."""
    return isinstance(item, dict) and all(
        name in item and _composed(cell_text(item[name])) in (_composed(text), _composed(cell_text(text)))
        for name, text in members
    )


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _unquoted(name: str) -> str:
    return str(parse_json(name)) if name.startswith('"') else name


def is_inside(path: str, around: str) -> bool:
    """True if a path leads to something inside of what another one leads to."""
    return path.startswith(f"{around}/")
