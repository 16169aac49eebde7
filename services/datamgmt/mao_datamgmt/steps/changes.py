"""Pure: what a tool changed, from how its folder was handed over and how it is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .output import Found, Stamp


@dataclass(frozen=True, slots=True)
class HandedOver:
    """How a workspace was handed to the tool: `sealed_at` is later than the stamps of all its files,
    in the file system's own time (ns), or equal to those of files that were written last."""

    files: Mapping[str, Stamp]
    sealed_at: int


@dataclass(frozen=True, slots=True)
class Changes:
    """`touched` says whether the tool did anything to any file; `written` may still have the old content."""

    written: list[Found]
    removed: list[str]
    touched: bool


def changes_of(before: HandedOver, now: Mapping[str, Found], same: Sequence[str] = ()) -> Changes:
    """Files with the stamp they were handed over with are unchanged and need not be read.

    `same`: files left out of `now` since they are surely unchanged. A file stamped in the very moment
    of the hand-over is read all the same, see `Survey.is_same`.
    """
    touched = [each for each in now.values() if before.files.get(each.path) != each.stamp]
    racy = [
        each for each in now.values() if before.files.get(each.path) == each.stamp and _racy(each, before)
    ]
    removed = _removed(before, now, same)
    return Changes(touched + racy, removed, bool(touched or removed))


def _removed(before: HandedOver, now: Mapping[str, Found], same: Sequence[str]) -> list[str]:
    if len(same) + sum(path in before.files for path in now) == len(before.files):
        return []
    here = {*now, *same}
    return [path for path in before.files if path not in here]


def _racy(found: Found, before: HandedOver) -> bool:
    return found.stamp[3] >= before.sealed_at
