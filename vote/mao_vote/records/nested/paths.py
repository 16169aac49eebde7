"""Paths of values in nested data, and what a definition says about the value at a path.

A path is a JSON pointer in which the entry of a list is named by what identifies it, as in
`/entries/[name="x"]/date`; a member whose name begins with `[` begins with `~2` in a path. A pattern is a
JSON pointer in which `*` stands for any entry.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mao_shared.models.round import FieldRule
from mao_vote.records.reading.load import escape_step

if TYPE_CHECKING:
    pass

_ENTRY_STEP = re.compile(r"/\[[^/]*")
_DEFAULT = FieldRule()


@lru_cache(maxsize=1 << 14)  # a document has few names, which are repeated in all its entries
def member_steps(name: str) -> tuple[str, str]:
    """Return the steps of an object's member in a path, and in a JSON pointer or a pattern."""
    step = escape_step(name)
    return f"~2{step[1:]}" if step.startswith("[") else step, step


def leaf_pattern(path: str) -> str:
    """Return the pattern of a path: entries of lists are `*`."""
    if "[" not in path and "~2" not in path:
        return path
    return _ENTRY_STEP.sub("/*", path).replace("/~2", "/[")


def is_entry(path: str) -> bool:
    """True if a path leads to an entry of a list."""
    return path.rpartition("/")[2].startswith("[")


def field_rule(fields: Mapping[str, FieldRule], name: str, default: FieldRule | None = None) -> FieldRule:
    """Return what a definition declares for a pattern or a field, by its whole name or its last step."""
    if not fields:
        return _DEFAULT
    found = fields.get(name) or fields.get(f"/{name}")
    if found is None and name.startswith("/"):
        found = fields.get(unescape_step(name.rpartition("/")[2]))
    return found or default or _DEFAULT


def unescape_step(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


class NamedFields:
    """Fields that a definition names by JSON pointer, by pattern or by the last step of these."""

    def __init__(self, names: Collection[str]) -> None:
        self._pointers = frozenset(name for name in names if name.startswith("/"))
        self._steps = frozenset(name for name in names if not name.startswith("/"))

    def __bool__(self) -> bool:
        return bool(self._pointers or self._steps)

    def __contains__(self, pointer: str) -> bool:
        """True if the value at a pointer or pattern is named, itself or with a value around it."""
        return any(
            part in self._pointers or unescape_step(part.rpartition("/")[2]) in self._steps
            for part in _beginnings(pointer)
        )

    def has(self, pointer: str, pattern: str, name: str) -> bool:
        """True if a value is named, itself and not only with what is around it."""
        if not self:
            return False
        is_named = name in self._steps or escape_step(name) in self._steps
        return is_named or pointer in self._pointers or pattern in self._pointers

    def without(self, value: Any, pointer: str, pattern: str, *, keep_empty: bool = False) -> Any:
        """Return a value without the members and entries that are named.

        Objects and lists that become empty are left out as well, unless `keep_empty`.
        """
        if not self or not isinstance(value, dict | list):
            return value
        kept: list[tuple[str, Any]] = []
        for name, below, inner in self._children(value, pointer, pattern):
            remaining = self.without(inner, *below, keep_empty=keep_empty)
            if keep_empty or remaining or remaining == inner:
                kept.append((name, remaining))
        return dict(kept) if isinstance(value, dict) else [inner for _, inner in kept]

    def _children(
        self, value: dict[str, Any] | list[Any], pointer: str, pattern: str
    ) -> Iterator[tuple[str, tuple[str, str], Any]]:
        """Yield the members or entries that are not named: name, pointer and pattern, value."""
        if isinstance(value, dict):
            for name, inner in value.items():
                below = f"{pointer}/{escape_step(name)}", f"{pattern}/{escape_step(name)}"
                if not self.has(*below, name):
                    yield name, below, inner
            return
        for place, inner in enumerate(value):
            below = f"{pointer}/{place}", f"{pattern}/*"
            if not self.has(*below, str(place)):
                yield str(place), below, inner


def _beginnings(pointer: str) -> Iterator[str]:
    at = pointer.find("/", 1)
    while at > 0:
        yield pointer[:at]
        at = pointer.find("/", at + 1)
    yield pointer
