"""Finds what tells the entries of a list of objects apart: a member, or two together.

The member is declared in the vote's definition, or inferred from the lists of all versions: it must be in
every entry, differ between the entries of each list, and have mostly the same values in most versions. Text
comes before integers; other numbers are measurements, of which two may be equal by chance. A list without
such a member has no identity, and is compared as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from mao_shared.json_text import is_number, parse_json
from mao_shared.models.round import Fold
from mao_vote.records.fields.folding import fold_texts
from mao_vote.records.reading.load import cell_text, escape_step

_USUAL_NAMES = ("id", "key", "name", "path", "uuid", "url", "uri", "slug", "doi")
_USUAL_ENDINGS = ("_id", "-id", "_name", "_key", "_url")
_MAX_PAIRED = 8  # members that are tried in pairs
_MIN_SHARED = 50  # percent of a version's entries that most versions must have
_MIN_SHARED_NUMBER = 90  # the same for integers without a usual name, which may be measurements
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?[0-9]*[.,][0-9]+(?:[eE][+-]?[0-9]+)?")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

_Kind = Literal["text", "integer"]
Entries = Mapping[str, Any]
"""Step → entry, in the list's order. A step such as `[name="x"]` is the entry's part of a path."""


def fold_json_texts(texts: Sequence[str], folds: Collection[Fold]) -> list[str]:
    """Return JSON texts, of which strings are folded as the texts of records are (fields/folding.py)."""
    chosen = {
        place: content
        for place, text in enumerate(texts)
        if text.startswith('"') and (folds or not text.isascii()) and (content := _whole_string(text))
    }
    if not chosen:
        return list(texts)
    import polars

    folded = fold_texts(polars.Series(list(chosen.values()), dtype=polars.String), tuple(folds))
    known = {place: cell_text(content) for place, content in zip(chosen, folded, strict=True)}
    return [known.get(place, text) for place, text in enumerate(texts)]


def _whole_string(text: str) -> str | None:
    """Return the content of a JSON string; None if it has half a letter, which no table can hold."""
    content = str(parse_json(text))
    return None if any("\ud800" <= letter <= "\udfff" for letter in content) else content


def find_entries(items: Sequence[Any], key: Sequence[str], folds: Collection[Fold] = ()) -> Entries | str:
    """Return a list's entries by step, or the reason why `key` does not identify them."""
    written = [name if _PLAIN_NAME.fullmatch(name) else cell_text(name) for name in key]
    texts: list[str] = []
    for item in items:
        if not isinstance(item, dict):
            return "an entry is no object"
        for name in key:
            if (value := item.get(name)) is None or isinstance(value, dict | list):
                return f"an entry has no {name!r}"
            texts.append(cell_text(value))
    folded = iter(fold_json_texts(texts, folds))
    entries: dict[str, Any] = {}
    for item in items:
        members = ",".join(f"{name}={next(folded)}" for name in written)
        step = escape_step(f"[{members}]")
        if step in entries:
            return f"two entries have the same {' and '.join(map(repr, key))}"
        entries[step] = item
    return entries


@dataclass(frozen=True, slots=True)
class Identity:
    """The members of a list's entries that identify them; empty with the reason `why` there are none."""

    key: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class FoundLists:
    """The lists at one place, or at the places of one pattern, in one version of a document.

    `lists`: path → list.
    """

    version: int
    votes: int
    lists: Mapping[str, list[Any]]

    def entries(self) -> Iterator[Any]:
        for items in self.lists.values():
            yield from items

    @property
    def are_objects(self) -> bool:
        return all(isinstance(item, dict) for item in self.entries())


def find_identity(
    found: Sequence[FoundLists],
    *,
    declared: Sequence[str] = (),
    unfit: Collection[str] = (),
    folds: Collection[Fold] = (),
) -> Identity:
    """Return the members that identify the entries of lists.

    Args:
        found: the lists of each version that has any.
        declared: the members that the definition names; nothing is inferred then.
        unfit: members that may not identify entries, since they are expected to differ.
    """
    total = sum(lists.votes for lists in found)
    filled = [lists for lists in found if any(lists.lists.values())]
    objects = [lists for lists in filled if lists.are_objects]
    if declared:
        steps = _find_steps(found, declared, folds)
        if 2 * sum(lists.votes for lists in found if lists.version in steps) > total:
            return Identity(tuple(declared))
        return Identity(why=f"are not told apart by {' and '.join(declared)}")
    if 2 * sum(lists.votes for lists in objects) <= sum(lists.votes for lists in filled):
        has_objects = any(isinstance(item, dict) for lists in filled for item in lists.entries())
        return Identity(why="are not all objects" if has_objects else "")
    several = sum(lists.votes for lists in objects if any(len(items) > 1 for items in lists.lists.values()))
    has_many = 2 * several > sum(lists.votes for lists in objects)
    for keys, min_shared in _candidates(_member_kinds(objects, unfit), has_many=has_many):
        best: tuple[int, Identity] | None = None
        for key in keys:
            steps = _find_steps(found, key, folds)
            usable = sum(lists.votes for lists in found if lists.version in steps)
            shared = _count_shared(found, steps, min_shared) if 2 * usable > total else 0
            if shared and (best is None or shared > best[0]):
                best = shared, Identity(key)
        if best is not None:
            return best[1]
    return Identity(why="have no member that tells them apart")


def _member_kinds(objects: Sequence[FoundLists], unfit: Collection[str]) -> dict[str, _Kind]:
    """Return the members that all entries of most versions have, as texts or as integers."""
    votes: Counter[tuple[str, _Kind]] = Counter()
    for lists in objects:
        kinds: dict[str, _Kind | None] = {}
        for number, entry in enumerate(lists.entries()):
            if not number:
                kinds = {name: _kind(value) for name, value in entry.items() if name not in unfit}
            else:
                kinds = {
                    name: kind
                    for name, kind in kinds.items()
                    if kind is not None and name in entry and _kind(entry[name]) == kind
                }
        votes.update({(name, kind): lists.votes for name, kind in kinds.items() if kind is not None})
    total = sum(lists.votes for lists in objects)
    return {name: kind for (name, kind), count in votes.items() if 2 * count > total}


def _kind(value: Any) -> _Kind | None:
    """Return the kind of a value that may identify an entry, None for others, such as measured numbers."""
    if not isinstance(value, str):
        return None
    if not is_number(value):
        return None if _DECIMAL.fullmatch(value) else "text"
    return "integer" if _INTEGER.fullmatch(cell_text(value)) else None


def _candidates(kinds: Mapping[str, _Kind], *, has_many: bool) -> Iterator[tuple[list[tuple[str, ...]], int]]:
    """Yield groups of possible keys, the better ones first, each with the percentage that must be shared.

    Args:
        has_many: most versions have a list of several entries, without which any member is unique.
    """
    folded = {name: name.casefold() for name in kinds}
    usual = [name for known in _USUAL_NAMES for name in kinds if folded[name] == known]
    usual += [name for name in kinds if folded[name].endswith(_USUAL_ENDINGS) and name not in usual]
    for name in usual:
        yield [(name,)], _MIN_SHARED
    texts = [name for name, kind in kinds.items() if kind == "text" and name not in usual]
    numbers = [name for name, kind in kinds.items() if kind == "integer" and name not in usual]
    yield [(name,) for name in texts], _MIN_SHARED
    if not has_many:
        return
    yield [(name,) for name in numbers], _MIN_SHARED_NUMBER
    ranked = [*usual, *texts, *numbers][:_MAX_PAIRED]
    yield [pair for pair in combinations(ranked, 2) if pair[0] not in numbers], _MIN_SHARED


def _find_steps(
    found: Sequence[FoundLists], key: Sequence[str], folds: Collection[Fold]
) -> dict[int, list[tuple[str, str]]]:
    """Return the entries, as (path of the list, step), of the versions in which the key identifies them."""
    steps: dict[int, list[tuple[str, str]]] = {}
    for lists in found:
        of_version: list[tuple[str, str]] = []
        for path, items in lists.lists.items():
            entries = find_entries(items, key, folds)
            if isinstance(entries, str):
                break
            of_version += [(path, step) for step in entries]
        else:
            steps[lists.version] = of_version
    return steps


def _count_shared(
    found: Sequence[FoundLists], steps: Mapping[int, Sequence[tuple[str, str]]], min_percent: int
) -> int:
    """Return how many entries, counted for each node, are in most versions.

    It is 0 unless most versions that have entries share `min_percent` of them with most versions.
    """
    votes = {lists.version: lists.votes for lists in found if steps.get(lists.version)}
    holders: Counter[tuple[str, str]] = Counter()
    for version, count in votes.items():
        holders.update(dict.fromkeys(steps[version], count))
    total = sum(votes.values())
    shared, sharing = 0, 0
    for version, count in votes.items():
        common = sum(2 * holders[step] > total for step in steps[version])
        shared += count * common
        sharing += count * (100 * common >= min_percent * len(steps[version]))
    return shared if 2 * sharing > total else 0
